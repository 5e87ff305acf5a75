//! The connection on which one primary announces.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis_protocol::resp3::types::{BytesFrame, Resp3Frame as _};
use resonant_common::backoff::Backoff;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::hub::Hub;
use super::target::Address;
use super::wire::Wire;

const AGAIN: Backoff =
    Backoff { initial: Duration::from_millis(50), max: Duration::from_secs(1), factor: 2.0 };
/// How often a server that refuses to announce is asked again.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);

/// No clock is that late: a server that says so is not believed.
const LAST_SECOND: u64 = 1 << 40;

/// Why an ear ended.
enum End {
    /// The connection.
    Broke(io::Error),
    /// It is time to ask a server anew that refuses to announce.
    AskAgain,
    /// No answer in time.
    Silent,
}

/// Listens to one primary until it is dropped.
pub(super) async fn listen(cluster: Arc<Cluster>, address: Address) {
    let (mut failures, mut refused) = (0u32, false);
    loop {
        let mut connected = false;
        let end = hear(&cluster, &address, &mut connected, &mut refused).await;
        if matches!(end, End::Silent) {
            // Before anybody forgets what this server counts, and asks for it again.
            cluster.note_life(&address, false);
        }
        cluster.hub.unheard(&address, refused);
        match &end {
            End::Silent => {}
            End::Broke(error) => {
                tracing::debug!(node = %address, %error, "a listener's connection ended");
            }
            End::AskAgain => {}
        }
        cluster.refresh();
        if connected {
            failures = 0;
        } else {
            let wait = AGAIN.wait(failures, &mut rand::rng());
            tokio::time::sleep(wait.max(Duration::from_millis(10))).await;
            failures = failures.saturating_add(1);
        }
    }
}

async fn hear(
    cluster: &Cluster,
    address: &Address,
    connected: &mut bool,
    refused: &mut bool,
) -> End {
    let limit = cluster.settings.connect_timeout;
    let (mut wire, refusal) = match tokio::time::timeout(limit, arm(cluster, address)).await {
        Ok(Ok(armed)) => armed,
        Ok(Err(error)) => return End::Broke(error),
        Err(_) => return End::Silent,
    };
    *connected = true;
    cluster.note_life(address, true);
    match &refusal {
        None => cluster.hub.heard(address),
        Some(_) => cluster.hub.unheard(address, true),
    }
    if let Some(refusal) = refusal.as_deref().filter(|_| !*refused) {
        tracing::warn!(
            node = %address, refusal,
            "the Redis server does not announce changes; values stay in the process for a moment only"
        );
    }
    *refused = refusal.is_some();
    let end = Instant::now() + REFUSED_AGAIN;
    let patience = cluster.max_age / 2;
    let mut next = Instant::now();
    let mut asked: Option<Instant> = None;
    loop {
        // One question at a time; its answer comes behind everything announced before it.
        let wake = asked.map_or(next, |asked| asked + patience);
        let frame = tokio::select! {
            frame = wire.frame() => match frame {
                Ok(frame) => frame,
                Err(error) => return End::Broke(error),
            },
            () = tokio::time::sleep_until(wake) => {
                if asked.is_some() {
                    return End::Silent;
                }
                if *refused && end <= wake {
                    return End::AskAgain;
                }
                if let Err(error) = wire.send(&["TIME"]).await {
                    return End::Broke(error);
                }
                asked = Some(Instant::now());
                continue;
            }
        };
        if let BytesFrame::Push { data, .. } = &frame {
            announced(&cluster.hub, data);
        } else if let Some(sent) = asked.take() {
            let now = Instant::now();
            if let Some(time) = time(&frame) {
                cluster.clock.sample(address, time, sent, now);
            }
            next = sent + cluster.max_age / 4;
        }
    }
}

/// A connection, and why the server does not announce on it, if so.
async fn arm(cluster: &Cluster, address: &Address) -> io::Result<(Wire, Option<String>)> {
    let mut wire = Wire::connect(address, &cluster.settings).await?;
    let login = cluster.targets.login(address).await.map_err(io::Error::other)?;
    let hello = wire.hello(&login).await?;
    if let Some(why) = refusal(&hello, "HELLO")? {
        // A server of the old protocol is listened to as well, for its clock and its life.
        if let Some(answer) = wire.log_in(&login).await?
            && let Some(code) = refusal(&answer, "AUTH")?
        {
            return Err(io::Error::other(code));
        }
        return Ok((wire, Some(why)));
    }
    let names = cluster.hub.names();
    let words =
        ["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", &names.values, "PREFIX", &names.bumps];
    wire.send(&words).await?;
    let answer = wire.frame().await?;
    let why = refusal(&answer, "CLIENT TRACKING")?;
    Ok((wire, why))
}

/// A refusal for good; one that may pass is an error.
pub(super) fn refusal(answer: &BytesFrame, what: &str) -> io::Result<Option<String>> {
    let text = match answer {
        BytesFrame::SimpleError { data, .. } => data.to_string(),
        BytesFrame::BlobError { data, .. } => String::from_utf8_lossy(data).into_owned(),
        _ => return Ok(None),
    };
    let code = text.split(' ').next().unwrap_or_default();
    if matches!(code, "ERR" | "NOPERM" | "NOPROTO") {
        return Ok(Some(format!("{what}: {code}")));
    }
    Err(io::Error::other(format!("{what} was refused: {code}")))
}

pub(super) fn announced(hub: &Hub, data: &[BytesFrame]) {
    let [kind, what] = data else { return };
    if kind.as_bytes() != Some(b"invalidate") {
        return;
    }
    match what {
        BytesFrame::Array { data, .. } => {
            for name in data.iter().filter_map(|name| name.as_bytes()) {
                hub.changed(name);
            }
        }
        // No keys: everything is gone.
        _ => hub.flushed(),
    }
}

/// The answer to `TIME`; `None` where it is not allowed, which answers that the server lives all the same.
pub(super) fn time(frame: &BytesFrame) -> Option<Duration> {
    let BytesFrame::Array { data, .. } = frame else { return None };
    let [seconds, micros] = &data[..] else { return None };
    let number = |frame: &BytesFrame, most: u64| {
        frame.as_str()?.parse::<u64>().ok().filter(|number| *number < most)
    };
    let (seconds, micros) = (number(seconds, LAST_SECOND)?, number(micros, 1_000_000)?);
    Some(Duration::from_secs(seconds) + Duration::from_micros(micros))
}
