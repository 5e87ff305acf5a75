//! What became of messages, of all partitions that have something to say at once, in one statement.

use resonant_db::params;
use serde_json::json;

use super::sharing::{Load, Wait, briefly};
use super::store::{Shared, foreign, get};
use super::text::{numbers, signed, texts, unsigned};
use crate::backend::Settlement;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};

/// What became of messages of a partition.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) partition: i32,
    pub(super) epoch: u64,
    done: String,
    rest: Option<String>,
    size: (usize, usize),
}

impl Settled {
    pub(super) fn new(partition: i32, epoch: u64, batch: &[Settlement]) -> Self {
        let done = batch.iter().filter_map(|settlement| match settlement {
            Settlement::Done { sequence } => Some(Some(signed(*sequence))),
            _ => None,
        });
        let (done, rest) = (numbers(done), rest(batch));
        let size = (batch.len(), rest.as_ref().map_or(0, String::len));
        Self { partition, epoch, done, rest, size }
    }
}

impl Load for Settled {
    /// The epoch that holds. If it is another, nothing was changed.
    type Answer = u64;

    const OPERATION: &'static str = "settle";

    const REPEATABLE: bool = true;

    const MOST: (usize, usize) = (5000, 1 << 20);

    fn size(&self) -> (usize, usize) {
        self.size
    }

    fn is_about_one(error: &Error, _same: bool) -> bool {
        error.kind() != ErrorKind::Closed
    }

    fn partition(&self) -> Option<i32> {
        Some(self.partition)
    }

    async fn carry(shared: &Shared, loads: &[&Self], wait: Wait) -> Result<Vec<u64>> {
        const SETTLE: &str =
            "SELECT u.place, resonant_queue.settle(u.part, u.epoch, u.done::bigint[], u.rest::json)
            FROM unnest($1::int[], $2::bigint[], $3::text[], $4::text[], $5::bigint[]) AS u (part, epoch, done, rest, place)";
        // There is no row to settle before the limit is set.
        const BRIEFLY: &str = concat!(
            briefly!("$6"),
            "SELECT u.place, resonant_queue.settle(u.part, u.epoch, u.done::bigint[], u.rest::json)
            FROM briefly CROSS JOIN unnest($1::int[], $2::bigint[], $3::text[], $4::text[], $5::bigint[])
                AS u (part, epoch, done, rest, place) WHERE briefly.most IS NOT NULL"
        );
        // All lock in the same order.
        let mut order: Vec<usize> = (0..loads.len()).collect();
        order.sort_by_key(|place| loads[*place].partition);
        let sorted = || order.iter().map(|place| loads[*place]);
        let parts = numbers(sorted().map(|load| Some(i64::from(load.partition))));
        let epochs = numbers(sorted().map(|load| Some(signed(load.epoch))));
        let done = texts(sorted().map(|load| Some(load.done.as_str())));
        let rest = texts(sorted().map(|load| load.rest.as_deref()));
        let places = numbers(order.iter().map(|place| Some(signed(*place as u64))));
        let rows = match wait {
            Wait::AsSet => {
                shared.rows("settle", SETTLE, params![parts, epochs, done, rest, places]).await?
            }
            Wait::AtMost(most) => {
                let params = params![parts, epochs, done, rest, places, most];
                shared.rows("settle", BRIEFLY, params).await?
            }
        };
        let mut epochs = vec![None; loads.len()];
        for row in rows.iter() {
            let place = usize::try_from(get::<i64>("settle", &row, 0)?).ok();
            if let Some(epoch) = place.and_then(|place| epochs.get_mut(place)) {
                *epoch = Some(unsigned(get("settle", &row, 1)?));
            }
        }
        shared.wakes.room.notify_waiters();
        epochs.into_iter().map(|epoch| epoch.ok_or_else(|| foreign("settle"))).collect()
    }
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
