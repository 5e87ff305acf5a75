//! The connection on which one primary announces.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis_protocol::resp3::types::{BytesFrame, Resp3Frame as _};
use resonant_common::backoff::Backoff;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::target::Address;
use super::wire::Wire;

const AGAIN: Backoff =
    Backoff { initial: Duration::from_millis(50), max: Duration::from_secs(1), factor: 2.0 };
/// How often a server that refuses to announce is asked again.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);

/// Why an ear ended.
enum End {
    /// The connection.
    Broke(io::Error),
    /// The server does not announce to us.
    Refused(String),
    /// No answer in time.
    Silent,
}

/// Listens to one primary until it is dropped.
pub(super) async fn listen(cluster: Arc<Cluster>, address: Address) {
    let mut failures = 0u32;
    loop {
        let mut armed = false;
        let end = hear(&cluster, &address, &mut armed).await;
        let refused = matches!(end, End::Refused(_));
        cluster.hub.unheard(&address, refused);
        if armed {
            failures = 0;
        }
        match &end {
            End::Refused(text) => {
                tracing::warn!(
                    node = %address, refusal = text,
                    "the Redis server does not announce changes; values stay in the process only for a moment"
                );
            }
            End::Silent => cluster.kick(&address),
            End::Broke(error) => {
                tracing::debug!(node = %address, %error, "a listener's connection ended")
            }
        }
        cluster.refresh();
        let wait = match end {
            End::Refused(_) => REFUSED_AGAIN,
            _ if armed => Duration::ZERO,
            _ => AGAIN.wait(failures, &mut rand::rng()).max(Duration::from_millis(10)),
        };
        failures = failures.saturating_add(1);
        tokio::time::sleep(wait).await;
    }
}

async fn hear(cluster: &Cluster, address: &Address, armed: &mut bool) -> End {
    let limit = cluster.settings.connect_timeout;
    let arming = arm(cluster, address);
    let mut wire = match tokio::time::timeout(limit, arming).await {
        Ok(Ok(wire)) => wire,
        Ok(Err(end)) => return end,
        Err(_) => return End::Silent,
    };
    *armed = true;
    cluster.hub.heard(address);
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
                if let Err(error) = wire.send(&["TIME"]).await {
                    return End::Broke(error);
                }
                asked = Some(Instant::now());
                continue;
            }
        };
        if let BytesFrame::Push { data, .. } = &frame {
            announced(cluster, data);
        } else if let Some(sent) = asked.take() {
            let now = Instant::now();
            if let Some(time) = time(&frame) {
                cluster.clock.sample(address, time, sent, now);
            }
            next = sent + cluster.max_age / 4;
        }
    }
}

async fn arm(cluster: &Cluster, address: &Address) -> Result<Wire, End> {
    let mut wire = Wire::connect(address, &cluster.settings).await.map_err(End::Broke)?;
    let login = cluster.targets.login(address);
    let hello = wire.hello(&login).await.map_err(End::Broke)?;
    accepted(&hello, "HELLO")?;
    let names = cluster.hub.names();
    let words =
        ["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", &names.values, "PREFIX", &names.bumps];
    wire.send(&words).await.map_err(End::Broke)?;
    let answer = wire.frame().await.map_err(End::Broke)?;
    accepted(&answer, "CLIENT TRACKING")?;
    Ok(wire)
}

/// A refusal for good is told from one that will pass.
fn accepted(answer: &BytesFrame, what: &str) -> Result<(), End> {
    let text = match answer {
        BytesFrame::SimpleError { data, .. } => data.to_string(),
        BytesFrame::BlobError { data, .. } => String::from_utf8_lossy(data).into_owned(),
        _ => return Ok(()),
    };
    let code = text.split(' ').next().unwrap_or_default();
    if matches!(code, "ERR" | "NOPERM" | "NOPROTO") {
        return Err(End::Refused(format!("{what}: {code}")));
    }
    Err(End::Broke(io::Error::other(format!("{what} was refused: {code}"))))
}

fn announced(cluster: &Cluster, data: &[BytesFrame]) {
    let [kind, what] = data else { return };
    if kind.as_bytes() != Some(b"invalidate") {
        return;
    }
    match what {
        BytesFrame::Array { data, .. } => {
            for name in data.iter().filter_map(|name| name.as_bytes()) {
                cluster.hub.changed(name);
            }
        }
        // No keys: everything is gone.
        _ => cluster.hub.flushed(),
    }
}

/// The answer to `TIME`; `None` where it is not allowed, which answers that the server lives all the same.
fn time(frame: &BytesFrame) -> Option<Duration> {
    let BytesFrame::Array { data, .. } = frame else { return None };
    let [seconds, micros] = &data[..] else { return None };
    let number = |frame: &BytesFrame| frame.as_str()?.parse::<u64>().ok();
    Some(Duration::from_secs(number(seconds)?) + Duration::from_micros(number(micros)?))
}
