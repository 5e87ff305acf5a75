//! What became of messages, in one statement.

use resonant_db::params;
use serde_json::json;

use super::store::{Shared, get, one};
use super::text::{numbers, signed, unsigned};
use crate::backend::Settlement;
use crate::clock;
use crate::error::{Result, fenced};

pub(super) async fn settle(
    shared: &Shared,
    id: i32,
    partition: u32,
    epoch: u64,
    batch: &[Settlement],
) -> Result<()> {
    let done = batch.iter().filter_map(|settlement| match settlement {
        Settlement::Done { sequence } => Some(Some(signed(*sequence))),
        _ => None,
    });
    let (done, rest) = (numbers(done), rest(batch));
    let rows = shared
        .rows(
            "settle",
            "SELECT resonant_queue.settle($1, $2, $3, $4)",
            params![id, signed(epoch), done, rest],
        )
        .await?;
    let current: i64 = get("settle", &one("settle", &rows)?, 0)?;
    let current = unsigned(current);
    if current != epoch {
        return Err(fenced("settle", partition, epoch, current));
    }
    shared.wakes.room.notify_waiters();
    Ok(())
}

/// All but what is finished, in order, as the function reads it. What else is said of a finished message in a batch came
/// before it was finished.
fn rest(batch: &[Settlement]) -> Option<String> {
    let rest: Vec<_> = batch
        .iter()
        .filter_map(|settlement| match settlement {
            Settlement::Done { .. } => None,
            Settlement::Retry { sequence, failures, wait, error } => {
                let wait = signed(clock::as_millis(*wait));
                Some(json!({"as": "retry", "s": sequence, "f": failures, "w": wait, "e": plain(error)}))
            }
            Settlement::Park { sequence, failures, error } => {
                Some(json!({"as": "park", "s": sequence, "f": failures, "e": plain(error)}))
            }
            Settlement::ParkBehind { sequence } => Some(json!({"as": "behind", "s": sequence})),
            Settlement::Dead { sequence, failures, error } => {
                Some(json!({"as": "dead", "s": sequence, "f": failures, "e": plain(error)}))
            }
        })
        .collect();
    (!rest.is_empty()).then(|| serde_json::Value::Array(rest).to_string())
}

/// An error may say anything; the database takes no U+0000.
fn plain(error: &str) -> String {
    error.replace('\0', " ")
}
