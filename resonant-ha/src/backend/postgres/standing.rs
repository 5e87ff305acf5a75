//! When a standby stands still with everything it received known.
//!
//! What a standby acknowledged is what it received and flushed, and it may have replayed much less: replay waits for readers,
//! is paused or delayed, or has only begun after a restart, when the server does not know any more how far it received.
//! Only the startup process knows when there is nothing left, so its state is what counts:
//!
//! 1. The order's settings name no primary, and a session that is let in after that shows them. The postmaster has then told
//!    the startup process, which reads its settings before it starts another receiver.
//! 2. After that the startup process is seen in the sleep between two searches for more. It goes there only after it has ended
//!    the receiver, so none lives, and none will.
//! 3. It has replayed as far as was received. Where nothing was received since the start, the sleep alone says it: the
//!    first one comes after all that is on the disk was read. Where less was replayed, what is left is either a record of
//!    which only a part came, which nobody was told of, or the sleep came before a last search: so the process is woken,
//!    several times, and still sleeps at the same place.
//!
//! Anything else is [`Unsettled`], never a position.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::address::Address;
use super::client::{Session, look, row, run, run_at_once};
use super::sql;
use crate::error::Result;
use crate::region::Unsettled;

/// The startup process's sleep between two searches for more.
const SEARCHES: &str = "RecoveryRetrieveRetryInterval";
/// How long to wait for it before the standby counts as unable; the order is given again.
const LIMIT: Duration = Duration::from_secs(2);
/// How long an incomplete record has to be the last one.
const INCOMPLETE: Duration = Duration::from_millis(150);
/// How often the startup process is woken in that time.
const WAKE: Duration = Duration::from_millis(45);
const PAUSE: Duration = Duration::from_millis(5);

/// Stops what the standby receives, and returns how far its data reach for good.
pub(super) async fn settle(client: &Session, to: &Address) -> Result<u64> {
    const OPERATION: &str = "freeze";
    let began = Instant::now();
    // Under the server's lock nobody else asks for a promotion; one that was asked for before is not to be missed.
    if row(client, OPERATION, sql::PROMOTES).await?.get(0) {
        return Err(Unsettled::Promotes.refuse(OPERATION));
    }
    let stop = ["ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"];
    run_at_once(client, OPERATION, &stop).await?;
    while !shows(to, OPERATION, "primary_conninfo", "").await? {
        if began.elapsed() >= LIMIT {
            return Err(Unsettled::Receives.refuse(OPERATION));
        }
        sleep(PAUSE).await;
    }
    let mut last: Option<(u64, Instant)> = None;
    let mut woken = began;
    loop {
        let unsettled = match part(client).await? {
            Some(unsettled) => unsettled,
            None => {
                let seen = row(client, OPERATION, sql::POSITIONS).await?;
                let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
                let (replayed, received): (u64, Option<u64>) =
                    (number(seen.get(0)).unwrap_or(0), number(seen.get(1)));
                if received.is_none_or(|received| replayed >= received) {
                    return Ok(replayed);
                }
                let since = match last {
                    Some((same, since)) if same == replayed => since,
                    _ => Instant::now(),
                };
                last = Some((replayed, since));
                if since.elapsed() >= INCOMPLETE {
                    return Ok(replayed);
                }
                if woken.elapsed() >= WAKE {
                    woken = Instant::now();
                    run(client, OPERATION, &["SELECT pg_reload_conf()"]).await?;
                }
                Unsettled::Replays
            }
        };
        if began.elapsed() >= LIMIT {
            return Err(unsettled.refuse(OPERATION));
        }
        sleep(PAUSE).await;
    }
}

/// Whether a session that is let in now shows a parameter with this value.
pub(super) async fn shows(
    to: &Address,
    operation: &'static str,
    parameter: &str,
    value: &str,
) -> Result<bool> {
    let sql = format!("SELECT current_setting({})", sql::quote(parameter));
    let shown: String = look(to, operation, &sql).await?.get(0);
    Ok(shown == value)
}

/// What keeps the standby from standing; `None` while it searches for more and finds nothing.
async fn part(client: &Session) -> Result<Option<Unsettled>> {
    let seen = row(client, "freeze", sql::PARTS).await?;
    let (receives, paused, event): (bool, bool, String) = (seen.get(0), seen.get(1), seen.get(2));
    Ok(match event.as_str() {
        _ if paused => Some(Unsettled::ReplayPaused),
        _ if receives => Some(Unsettled::Receives),
        SEARCHES => None,
        "" => Some(Unsettled::Replays),
        _ => Some(Unsettled::ReplayWaits(event)),
    })
}
