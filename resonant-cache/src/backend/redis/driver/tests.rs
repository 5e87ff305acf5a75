//! The contract of the seam, for each driver, against a server that does what it is told.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;

const SOON: Duration = Duration::from_secs(30);
/// For how long a process stands still.
const STALL: Duration = Duration::from_millis(300);

#[cfg(feature = "fred")]
const DRIVERS: [RedisDriver; 2] = [RedisDriver::Native, RedisDriver::Fred];
#[cfg(not(feature = "fred"))]
const DRIVERS: [RedisDriver; 1] = [RedisDriver::Native];

/// What a server was told, a line for each command, and what it says to each; to some it says nothing.
#[derive(Debug, Default)]
struct Server {
    heard: Mutex<Vec<String>>,
    ended: tokio::sync::Notify,
    gate: tokio::sync::Notify,
}

impl Server {
    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn say(command: &str) -> Option<String> {
        let mut words = command.splitn(2, ' ');
        Some(match (words.next().unwrap_or_default(), words.next()) {
            ("ECHO", Some(rest)) => format!("${}\r\n{rest}\r\n", rest.len()),
            ("REFUSE", Some(rest)) => format!("-{rest}\r\n"),
            ("WAIT", _) => return None,
            _ => "+OK\r\n".to_owned(),
        })
    }

    async fn talk(&self, socket: TcpStream) -> io::Result<()> {
        let mut socket = BufReader::new(socket);
        loop {
            let mut words = Vec::new();
            for _ in 0..length(&mut socket).await? {
                let mut word = vec![0; length(&mut socket).await? + 2];
                socket.read_exact(&mut word).await?;
                word.truncate(word.len() - 2);
                words.push(String::from_utf8_lossy(&word).into_owned());
            }
            let command = words.join(" ");
            let answer = Self::say(&command);
            let (waits, stalls) = (command == "GATE", command == "STALL");
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(command);
            if waits {
                self.gate.notified().await;
            }
            if let Some(answer) = answer {
                socket.write_all(answer.as_bytes()).await?;
            }
            let answered = Instant::now();
            while stalls && answered.elapsed() < STALL {
                std::hint::spin_loop();
            }
        }
    }
}

/// The number on a line behind its first sign.
async fn length(socket: &mut BufReader<TcpStream>) -> io::Result<usize> {
    let mut line = String::new();
    if socket.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.trim().get(1..).and_then(|digits| digits.parse().ok()).ok_or(io::ErrorKind::Other.into())
}

async fn connected(driver: RedisDriver, max_queued: usize) -> io::Result<(Link, Arc<Server>)> {
    patient(driver, max_queued, SOON).await
}

async fn patient(
    driver: RedisDriver,
    max_queued: usize,
    silence: Duration,
) -> io::Result<(Link, Arc<Server>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = Address { host: "127.0.0.1".into(), port: listener.local_addr()?.port() };
    let server = Arc::new(Server::default());
    let serving = Arc::clone(&server);
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let _ = serving.talk(socket).await;
        serving.ended.notify_one();
        Ok::<_, io::Error>(())
    });
    let targets =
        Targets::parse(&[format!("redis://{address}")], false).map_err(io::Error::other)?;
    let settings =
        Settings { driver, connect_timeout: SOON, silence, database: 0, tls: None, max_queued };
    match Link::connect(&address, &targets, false, &settings).await {
        Ok(link) => Ok((link, server)),
        Err(fault) => Err(io::Error::other(fault.to_string())),
    }
}

fn command(name: &'static str, word: &str) -> Command {
    Command::new(name, [Bytes::copy_from_slice(word.as_bytes())])
}

fn text(answer: &Answer) -> String {
    match answer {
        Ok(Reply::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_stand_in_order_and_refusals_are_the_servers_own_words() -> io::Result<()> {
    for driver in DRIVERS {
        let (link, _) = connected(driver, 64).await?;
        let words = [
            "LOADING Redis is loading",
            "READONLY You can't write against a read only replica.",
            "MOVED 1 h:2",
        ];
        let refuse = words.map(|word| command("REFUSE", word));
        let (one, two) = (command("ECHO", "one"), command("ECHO", "two"));
        let answers = link.exchange(&[&one, &refuse[0], &refuse[1], &refuse[2], &two], SOON).await;
        assert_eq!([text(&answers[0]), text(&answers[4])], ["one", "two"], "{driver:?}");
        for (answer, word) in answers[1..4].iter().zip(words) {
            assert!(matches!(answer, Err(Fault::Refused(text)) if text == word), "{answer:?}");
        }
        assert!(!link.is_ended(), "{driver:?}");
        assert!(link.exchange(&[], SOON).await.is_empty());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_asks_is_followed_by_its_command() -> io::Result<()> {
    for driver in DRIVERS {
        let (link, server) = connected(driver, 65_536).await?;
        let link = Arc::new(link);
        let tasks = (0..8).map(|task| {
            let link = Arc::clone(&link);
            tokio::spawn(async move {
                let (ask, mine) = (Command::new("ASKING", []), command("ECHO", "mine"));
                let theirs = command("ECHO", "theirs");
                let commands: &[&Command] =
                    if task % 2 == 0 { &[&ask, &mine, &ask, &mine] } else { &[&theirs, &theirs] };
                for _ in 0..300 {
                    let answers = link.exchange(commands, SOON).await;
                    assert!(answers.iter().all(Result::is_ok), "{driver:?}: {answers:?}");
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await?;
        }
        let heard = server.heard();
        let asked: Vec<_> = heard.windows(2).filter(|pair| pair[0] == "ASKING").collect();
        assert_eq!(asked.len(), 2_400, "{driver:?}");
        assert!(asked.iter().all(|pair| pair[1] == "ECHO mine"), "{driver:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_nothing_is_given_up_and_hears_nothing_more() -> io::Result<()> {
    for driver in DRIVERS {
        let (link, server) = patient(driver, 64, Duration::from_millis(200)).await?;
        let begun = Instant::now();
        let limit = Duration::from_millis(300);
        let silent = command("WAIT", "x");
        while !link.is_ended() {
            let answers = link.exchange(&[&silent, &silent], limit).await;
            assert!(matches!(&answers[..], [Err(_), Err(_)]), "{driver:?}: {answers:?}");
            assert!(begun.elapsed() < SOON, "{driver:?}: {:?}", begun.elapsed());
        }
        assert!(tokio::time::timeout(SOON, link.ended()).await.is_ok(), "{driver:?}");
        assert!(link.is_ended(), "{driver:?}");
        let late = command("ECHO", "late");
        let answers = link.exchange(&[&late], SOON).await;
        assert!(matches!(&answers[..], [Err(Fault::Down(_))]), "{driver:?}: {answers:?}");
        assert!(tokio::time::timeout(SOON, server.ended.notified()).await.is_ok(), "{driver:?}");
        assert!(!server.heard().iter().any(|heard| heard == "ECHO late"), "{driver:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_with_little_time_left_ends_nobodys_connection() -> io::Result<()> {
    for driver in DRIVERS {
        let (link, server) = connected(driver, 64).await?;
        let (gate, ping) = (Command::new("GATE", []), Command::new("PING", []));
        let with_time = async {
            let answers = link.exchange(&[&gate], SOON).await;
            assert!(matches!(answers[..], [Ok(_)]), "{driver:?}: {answers:?}");
        };
        let hurried = async {
            for _ in 0..10 {
                let answers = link.exchange(&[&ping], Duration::from_millis(1)).await;
                assert!(matches!(answers[..], [Err(Fault::TimedOut(_))]), "{answers:?}");
                assert!(!link.is_ended(), "{driver:?}");
            }
            server.gate.notify_one();
        };
        tokio::join!(with_time, hurried);
        // Nor when nothing was said for long, because nobody asked.
        let silence = Duration::from_millis(50);
        let (idle, _) = patient(driver, 64, silence).await?;
        tokio::time::sleep(silence * 2).await;
        for _ in 0..10 {
            let begun = Instant::now();
            let _ = idle.exchange(&[&ping], Duration::ZERO).await;
            // Unless the machine itself was as slow as that.
            assert!(!idle.is_ended() || begun.elapsed() >= silence, "{driver:?}");
            tokio::task::yield_now().await;
        }
        // What the hurried ones left behind is owed no more.
        let answers = link.exchange(&[&ping], SOON).await;
        assert!(matches!(answers[..], [Ok(_)]), "{driver:?}: {answers:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_its_callers_have_left_takes_room_until_it_is_answered() -> io::Result<()> {
    for driver in DRIVERS {
        let (link, server) = connected(driver, 8).await?;
        let (gate, ping) = (Command::new("GATE", []), Command::new("PING", []));
        let mut refused = 0;
        for _ in 0..20 {
            let answers = link.exchange(&[&gate], Duration::from_millis(1)).await;
            refused += usize::from(matches!(answers[..], [Err(Fault::Down(_))]));
        }
        assert_eq!(refused, 12, "{driver:?}");
        let begun = Instant::now();
        while !matches!(link.exchange(&[&ping], SOON / 30).await[..], [Ok(_)]) {
            assert!(begun.elapsed() < SOON, "{driver:?}: there is no room again");
            server.gate.notify_one();
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_owes_answers_for_long_is_given_up_even_by_short_callers() -> io::Result<()> {
    for driver in DRIVERS {
        let silence = Duration::from_millis(500);
        let (link, _) = patient(driver, 64, silence).await?;
        // All that is behind it waits as well.
        let gate = Command::new("GATE", []);
        let begun = Instant::now();
        while !link.is_ended() {
            assert!(begun.elapsed() < SOON, "{driver:?}: it is never given up");
            let _ = link.exchange(&[&gate], Duration::from_millis(2)).await;
        }
        assert!(begun.elapsed() >= silence, "{driver:?}: {:?}", begun.elapsed());
    }
    Ok(())
}

/// On one thread, so that nobody reads while it stands still.
#[tokio::test]
async fn a_process_that_stood_still_takes_no_server_for_dead() -> io::Result<()> {
    for driver in DRIVERS {
        let (link, _) = patient(driver, 64, STALL / 3).await?;
        let answers = link.exchange(&[&Command::new("STALL", [])], STALL / 2).await;
        assert!(matches!(answers[..], [Ok(_)]), "{driver:?}: {answers:?}");
        assert!(!link.is_ended(), "{driver:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answered_those_who_left_owes_nothing() -> io::Result<()> {
    for driver in DRIVERS {
        let silence = Duration::from_secs(1);
        let (link, server) = patient(driver, 64, silence).await?;
        let (gate, silent) = (Command::new("GATE", []), command("WAIT", "x"));
        let answers = link.exchange(&[&gate], Duration::from_millis(20)).await;
        assert!(matches!(answers[..], [Err(Fault::TimedOut(_))]), "{driver:?}: {answers:?}");
        // It is answered behind its caller's back; then nothing happens for long.
        server.gate.notify_one();
        tokio::time::sleep(silence + silence / 4).await;
        let begun = Instant::now();
        let answers = link.exchange(&[&silent], Duration::from_millis(10)).await;
        assert!(matches!(answers[..], [Err(Fault::TimedOut(_))]), "{driver:?}: {answers:?}");
        // Unless the machine itself was as slow as that.
        assert!(!link.is_ended() || begun.elapsed() >= silence, "{driver:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_when_a_link_is_ended_or_dropped_is_told_so_at_once() -> io::Result<()> {
    for driver in DRIVERS {
        let (link, server) = connected(driver, 64).await?;
        let silent = command("WAIT", "x");
        let waiting = async {
            let answers = link.exchange(&[&silent], SOON).await;
            assert!(matches!(&answers[..], [Err(Fault::Broken(_))]), "{driver:?}: {answers:?}");
        };
        let ending = async {
            while !server.heard().iter().any(|heard| heard == "WAIT x") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            link.end();
        };
        let begun = Instant::now();
        tokio::join!(waiting, ending);
        assert!(begun.elapsed() < SOON / 2, "{driver:?}");

        let (link, server) = connected(driver, 64).await?;
        drop(link);
        assert!(tokio::time::timeout(SOON, server.ended.notified()).await.is_ok(), "{driver:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_agreed_is_on_its_way() -> io::Result<()> {
    for driver in DRIVERS {
        let (link, server) = connected(driver, 4).await?;
        let (silent, echo) = (command("WAIT", "x"), command("ECHO", "x"));
        let four = [&silent; 4];
        let waiting = link.exchange(&four, SOON);
        let asking = async {
            while server.heard().iter().filter(|heard| *heard == "WAIT x").count() < 4 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let answers = link.exchange(&[&echo], SOON).await;
            assert!(matches!(&answers[..], [Err(Fault::Down(_))]), "{driver:?}: {answers:?}");
            link.end();
        };
        tokio::join!(waiting, asking);
    }
    Ok(())
}

/// The driver fred ends a connection at it; nobody is told that nothing was done, and the next one is not made at once.
#[cfg(feature = "fred")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_down_is_refused_or_leaves_open_what_was_done() -> io::Result<()> {
    let down = command("REFUSE", "CLUSTERDOWN Hash slot not served");
    let (silent, echo) = (command("WAIT", "x"), command("ECHO", "x"));
    let (link, _) = connected(RedisDriver::Native, 64).await?;
    let answers = link.exchange(&[&down, &echo], SOON).await;
    assert!(matches!(&answers[..], [Err(Fault::Refused(_)), Ok(_)]), "{answers:?}");

    let (link, _) = connected(RedisDriver::Fred, 64).await?;
    let begun = Instant::now();
    let answers = link.exchange(&[&echo, &down, &silent], SOON).await;
    let broken = matches!(&answers[..], [Ok(_), Err(Fault::Broken(_)), Err(Fault::Broken(_))]);
    assert!(broken, "{answers:?}");
    assert!(tokio::time::timeout(SOON, link.ended()).await.is_ok());
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
    Ok(())
}
