//! Nothing is left behind: not after a drop, not after a panic, not after `kill -9` of the test.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use resonant_testkit::{
    Nginx, PgBouncer, Postgres, PostgresCluster, RabbitMq, Redis, RedisCluster, Result,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use crate::support::{SOON, passes_alone};

/// All processes that run in a folder below this one, zombies aside.
fn processes_below(root: &Path) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("these tests look into /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(root))
    })
    .collect()
}

/// The shared-memory segments of the PostgreSQL servers in this folder.
fn segments_of(root: &Path) -> Vec<String> {
    let servers = fs::read_dir(root).expect("the folder").flatten();
    let pid_files = servers
        .filter_map(|server| fs::read_to_string(server.path().join("data/postmaster.pid")).ok());
    pid_files
        .filter_map(|file| Some(file.lines().nth(6)?.split_whitespace().nth(1)?.to_owned()))
        .collect()
}

/// All shared-memory segments there are.
fn segments() -> Vec<String> {
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    table
        .lines()
        .skip(1)
        .filter_map(|line| Some(line.split_whitespace().nth(1)?.to_owned()))
        .collect()
}

/// The files of shared memory that lie outside the servers' folders and that these processes have mapped.
fn shared_files(pids: &[u32]) -> BTreeSet<PathBuf> {
    let maps = pids.iter().filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/maps")).ok());
    maps.flat_map(|map| {
        map.lines()
            .filter_map(|line| line.split_once("/dev/shm/"))
            .map(|(_, name)| Path::new("/dev/shm").join(name))
            .collect::<Vec<_>>()
    })
    .collect()
}

/// Waits until there is none of something.
async fn none_left<T: Debug>(what: &str, look: impl Fn() -> Vec<T>) {
    let started = Instant::now();
    loop {
        let left = look();
        if left.is_empty() {
            return;
        }
        assert!(started.elapsed() < SOON, "{what} are left: {left:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The processes that run in this folder.
async fn no_processes_left(folder: &Path) {
    let look = || {
        let what = |pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        processes_below(folder).into_iter().map(|pid| (pid, what(pid))).collect()
    };
    none_left("processes", look).await;
}

/// The folder and its lock.
async fn no_folder_left(folder: &Path) {
    let both = [folder.to_owned(), folder.with_extension("lock")];
    none_left("folders", || both.iter().filter(|path| path.exists()).collect()).await;
}

/// Runs one of the ignored tests below in a process of its own, and returns it with the folder it says it uses.
pub(crate) async fn victim(test: &str, env: &[(&str, &OsStr)]) -> (Child, PathBuf) {
    let program = std::env::current_exe().expect("the test binary");
    let complaints = tempfile::NamedTempFile::new().expect("a file for what it complains of");
    let mut child = Command::new(program)
        .args(["--exact", test, "--ignored", "--nocapture"])
        .envs(env.iter().copied())
        .stdout(Stdio::piped())
        .stderr(complaints.reopen().expect("the same file"))
        .kill_on_drop(true)
        .spawn()
        .expect("the test binary runs");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let read = async {
        loop {
            let Some(line) = lines.next_line().await.expect("readable") else {
                panic!("it ended: {}", fs::read_to_string(complaints.path()).unwrap_or_default());
            };
            if line.contains("FIGURE") {
                println!("{line}");
            }
            if let Some((_, folder)) = line.split_once("FOLDER ") {
                return PathBuf::from(folder);
            }
        }
    };
    let folder = timeout(SOON * 3, read).await.expect("the victim to start everything");
    (child, folder)
}

/// The folder of this process, from a path below it.
fn run_folder(below: &Path) -> PathBuf {
    below
        .ancestors()
        .find(|path| path.with_extension("lock").is_file())
        .expect("a folder with a lock")
        .to_owned()
}

#[tokio::test]
async fn a_killed_test_leaves_no_process_no_folder_and_no_shared_memory() {
    let (mut child, folder) =
        victim("leftovers::starts_one_of_everything_and_waits_to_be_killed", &[]).await;
    let (running, mine) = (processes_below(&folder), segments_of(&folder));
    assert!(mine.len() >= 3 && mine.iter().all(|id| segments().contains(id)), "{mine:?}");
    // PostgreSQL with its helpers twice, six Redis nodes and one, nginx's two, Erlang's and its name server.
    assert!(running.len() > 20, "only {running:?}");
    let shared = shared_files(&running);
    child.kill().await.expect("kill -9");
    let killed = Instant::now();
    no_processes_left(&folder).await;
    no_folder_left(&folder).await;
    println!("FIGURE all gone after kill -9 of the test: {:?}", killed.elapsed());
    let mine = |id: &String| mine.contains(id);
    none_left("segments", || segments().into_iter().filter(mine).collect()).await;
    none_left("shared files", || shared.iter().filter(|file| file.exists()).collect()).await;
}

/// What stands on the builders: a dropped start ends what had started.
#[tokio::test]
async fn a_start_that_is_dropped_halfway_leaves_nothing() {
    passes_alone("leftovers::drops_starts_halfway", &[]).await;
}

/// The longest folder that is accepted still has room for every socket.
#[tokio::test]
async fn the_longest_folder_will_do() {
    let room = 60 - "/tmp//rk-4294967295".len();
    let longest = Path::new("/tmp").join(format!("{:x<room$}", std::process::id()));
    let test = "leftovers::starts_those_with_long_socket_names_and_waits";
    let (mut child, folder) = victim(test, &[("RESONANT_TESTKIT_DIR", longest.as_ref())]).await;
    assert!(folder.starts_with(&longest), "{}", folder.display());
    child.kill().await.expect("kill -9");
    no_folder_left(&folder).await;
    fs::remove_dir_all(&longest).expect("the folder");
}

#[tokio::test]
async fn a_panicking_test_leaves_nothing_either() {
    let (mut child, folder) = victim("leftovers::starts_a_server_and_panics", &[]).await;
    assert!(!child.wait().await.expect("its end").success());
    no_processes_left(&folder).await;
    no_folder_left(&folder).await;
}

#[tokio::test]
async fn dropping_a_cluster_ends_it_at_once_even_a_frozen_one() -> Result<()> {
    let pg = PostgresCluster::builder().replicas(1).start().await?;
    let redis = Redis::start().await?;
    let folders: Vec<PathBuf> =
        pg.nodes().iter().map(|node| node.socket_dir().to_owned()).collect();
    pg.replica(0).freeze()?;
    redis.freeze()?;
    let redis_folder = redis.log_file().parent().expect("a folder").to_owned();
    let last = pg.replica(0);
    drop((pg, redis));
    assert!(!folders[0].exists() && !redis_folder.exists());
    assert!(last.is_running() && folders[1].exists(), "whoever holds a node keeps it");
    drop(last);
    assert!(!folders[1].exists());
    for folder in folders.iter().chain([&redis_folder]) {
        assert_eq!(processes_below(folder), Vec::<u32>::new());
    }
    Ok(())
}

/// What a run whose reaper was killed too leaves behind is swept by the next.
#[tokio::test]
async fn the_next_run_sweeps_what_is_left() -> Result<()> {
    let (mut child, folder) = victim("leftovers::starts_a_server_and_waits", &[]).await;
    // The reaper is the shell that has this folder as its argument.
    let reaper = |pid: &u32| {
        let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.starts_with("/bin/sh\0-c")
            && arguments.contains(&format!("\0wait\0{}\0", folder.display()))
    };
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let reaper =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(reaper);
    let reaper = reaper.expect("a reaper").to_string();
    assert!(Command::new("kill").args(["-9", &reaper]).status().await.expect("kill").success());
    child.kill().await.expect("kill -9");
    if Command::new("setpriv").arg("--version").output().await.is_ok() {
        // The servers die with their parent.
        no_processes_left(&folder).await;
    }
    assert!(folder.exists(), "nobody is there to remove it");

    // Nor does anybody own a folder that has no lock.
    let unlocked = folder.with_file_name("999999999-0");
    fs::create_dir_all(unlocked.join("redis0")).expect("a folder");
    let (mut next, _) = victim("leftovers::starts_a_server_and_waits", &[]).await;
    assert!(!unlocked.exists());
    assert!(!folder.exists() && !folder.with_extension("lock").exists());
    assert_eq!(processes_below(&folder), Vec::<u32>::new());
    next.kill().await.expect("kill -9");
    Ok(())
}

#[tokio::test]
#[ignore = "a victim: run by a test above"]
async fn starts_one_of_everything_and_waits_to_be_killed() -> Result<()> {
    let started = Instant::now();
    let nowhere = ([127, 0, 0, 1], 1).into();
    let (pg, pooler, temp, redis, cluster, rabbit, nginx) = tokio::join!(
        PostgresCluster::builder().replicas(1).start(),
        PgBouncer::builder().in_front_of(nowhere).start(),
        Postgres::temp().into_future(),
        Redis::start(),
        RedisCluster::start(),
        RabbitMq::start(),
        Nginx::builder().http("server { listen {{listen}}; return 204; }").start(),
    );
    let everything = (pg?, pooler?, temp?, redis?, cluster?, rabbit?, nginx?);
    everything.0.primary().sql("SELECT 1").await?;
    println!("FIGURE everything side by side: {:?}", started.elapsed());
    println!("FOLDER {}", run_folder(everything.0.primary().socket_dir()).display());
    std::future::pending::<()>().await;
    Ok(())
}

#[tokio::test]
#[ignore = "a victim: run by a test above"]
async fn starts_those_with_long_socket_names_and_waits() -> Result<()> {
    let pg = PostgresCluster::builder().start().await?;
    let _pooler = PgBouncer::builder().in_front_of(pg.primary().address()).start().await?;
    println!("FOLDER {}", run_folder(pg.primary().socket_dir()).display());
    std::future::pending::<()>().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by a test above, in a process of its own"]
async fn drops_starts_halfway() -> Result<()> {
    let redis = Redis::start().await?;
    let folder = run_folder(&redis.log_file());
    drop(redis);
    for step in 0..13 {
        let patience = Duration::from_millis(step * step * 10);
        let all = async {
            tokio::try_join!(
                PostgresCluster::builder().replicas(2).start(),
                RedisCluster::start(),
                RabbitMq::start()
            )
        };
        // RabbitMQ alone takes longer.
        assert!(timeout(patience, all).await.is_err(), "nothing was dropped halfway");
        no_processes_left(&folder).await;
        // What is left is the template that the next cluster is copied from.
        let others = || {
            let names = fs::read_dir(&folder).expect("it").flatten().map(|entry| entry.file_name());
            let mut names: Vec<_> = names.collect();
            if let Some(one) =
                names.iter().position(|name| name.to_string_lossy().starts_with("tmpl"))
            {
                names.swap_remove(one);
            }
            names
        };
        none_left("folders", others).await;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "a victim: run by a test above"]
async fn starts_a_server_and_waits() -> Result<()> {
    let redis = Redis::start().await?;
    println!("FOLDER {}", run_folder(&redis.log_file()).display());
    std::future::pending::<()>().await;
    Ok(())
}

#[tokio::test]
#[ignore = "a victim: run by a test above"]
async fn starts_a_server_and_panics() {
    let pg = PostgresCluster::builder().start().await.expect("a server");
    println!("FOLDER {}", run_folder(pg.primary().socket_dir()).display());
    panic!("as tests do");
}
