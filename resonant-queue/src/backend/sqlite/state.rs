//! What the writer knows without asking: counters, last sequences and last messages of keys.
//!
//! All of it is also in the file, written once per transaction however many messages changed it. It is forgotten
//! when a transaction fails or another process has written.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::key::Key;

/// Keys held in memory at most; past it all are forgotten and read again.
const KEYS: usize = 200_000;

/// A key that was not heard of for so many messages of its partition is removed from the file.
const STALE: i64 = 1_000_000;

/// How many keys are looked at in one go.
const LOOK: i64 = 500;

#[derive(Debug, Default)]
pub(super) struct State {
    queues: HashMap<i64, Counts>,
    partitions: HashMap<i64, Place>,
    keys: HashMap<i64, HashMap<Key, Last>>,
    key_count: usize,
    dirty_keys: Vec<(i64, Key)>,
    due: Option<u64>,
    pruned_to: (i64, String),
}

/// The row of a queue.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) ready: i64,
    pub(super) delayed: i64,
    pub(super) parked: i64,
    pub(super) parked_keys: i64,
    pub(super) dead: i64,
    pub(super) unique_ids: i64,
    dirty: bool,
}

impl Counts {
    pub(super) fn total(&self) -> i64 {
        self.ready + self.delayed + self.parked + self.dead
    }
}

/// The row of a partition.
#[derive(Debug, Clone, Copy)]
struct Place {
    queue: i64,
    last: i64,
    dirty: bool,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    sequence: i64,
    dirty: bool,
}

impl State {
    /// The counters of a queue, to be changed.
    pub(super) fn counts(
        &mut self,
        conn: &Connection,
        queue: i64,
    ) -> rusqlite::Result<&mut Counts> {
        let counts = match self.queues.entry(queue) {
            Entry::Occupied(counts) => counts.into_mut(),
            Entry::Vacant(vacant) => {
                let counts = conn
                    .prepare_cached(
                        "SELECT ready, delayed, parked, parked_keys, dead, unique_ids FROM queues WHERE id = ?1",
                    )?
                    .query_row([queue], |row| {
                        Ok(Counts {
                            ready: row.get(0)?,
                            delayed: row.get(1)?,
                            parked: row.get(2)?,
                            parked_keys: row.get(3)?,
                            dead: row.get(4)?,
                            unique_ids: row.get(5)?,
                            dirty: false,
                        })
                    })?;
                vacant.insert(counts)
            }
        };
        counts.dirty = true;
        Ok(counts)
    }

    fn place(&mut self, conn: &Connection, partition: i64) -> rusqlite::Result<&mut Place> {
        match self.partitions.entry(partition) {
            Entry::Occupied(place) => Ok(place.into_mut()),
            Entry::Vacant(vacant) => {
                let place = conn
                    .prepare_cached("SELECT queue, last FROM partitions WHERE id = ?1")?
                    .query_row([partition], |row| {
                        Ok(Place { queue: row.get(0)?, last: row.get(1)?, dirty: false })
                    })?;
                Ok(vacant.insert(place))
            }
        }
    }

    /// The queue a partition belongs to.
    pub(super) fn queue_of(&mut self, conn: &Connection, partition: i64) -> rusqlite::Result<i64> {
        Ok(self.place(conn, partition)?.queue)
    }

    /// The next sequence of a partition.
    pub(super) fn next_sequence(
        &mut self,
        conn: &Connection,
        partition: i64,
    ) -> rusqlite::Result<i64> {
        let place = self.place(conn, partition)?;
        place.last += 1;
        place.dirty = true;
        Ok(place.last)
    }

    /// Notes the last sequence of a key and returns the one before.
    pub(super) fn follow(
        &mut self,
        conn: &Connection,
        partition: i64,
        key: &Key,
        sequence: i64,
    ) -> rusqlite::Result<Option<i64>> {
        let keys = self.keys.entry(partition).or_default();
        if let Some(last) = keys.get_mut(key) {
            let before = std::mem::replace(&mut last.sequence, sequence);
            if !std::mem::replace(&mut last.dirty, true) {
                self.dirty_keys.push((partition, key.clone()));
            }
            return Ok(Some(before));
        }
        let before = conn
            .prepare_cached("SELECT sequence FROM keys WHERE partition = ?1 AND key = ?2")?
            .query_row(params![partition, key.as_str()], |row| row.get(0))
            .optional()?;
        keys.insert(key.clone(), Last { sequence, dirty: true });
        self.key_count += 1;
        self.dirty_keys.push((partition, key.clone()));
        Ok(before)
    }

    /// A delayed message was stored that falls due then.
    pub(super) fn due_at(&mut self, due: u64) {
        self.due = Some(self.due.map_or(due, |known| known.min(due)));
    }

    pub(super) fn take_due(&mut self) -> Option<u64> {
        self.due.take()
    }

    /// Writes what changed. Belongs to the end of every transaction.
    pub(super) fn flush(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        for (queue, counts) in self.queues.iter_mut().filter(|(_, counts)| counts.dirty) {
            conn.prepare_cached(
                "UPDATE queues SET ready = ?2, delayed = ?3, parked = ?4, parked_keys = ?5, dead = ?6, unique_ids = ?7
                 WHERE id = ?1",
            )?
            .execute(params![
                queue,
                counts.ready,
                counts.delayed,
                counts.parked,
                counts.parked_keys,
                counts.dead,
                counts.unique_ids
            ])?;
            counts.dirty = false;
        }
        for (partition, place) in self.partitions.iter_mut().filter(|(_, place)| place.dirty) {
            conn.prepare_cached("UPDATE partitions SET last = ?2 WHERE id = ?1")?
                .execute(params![partition, place.last])?;
            place.dirty = false;
        }
        if self.dirty_keys.is_empty() {
            return Ok(());
        }
        let mut store = conn.prepare_cached(
            "INSERT INTO keys (partition, key, sequence) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET sequence = excluded.sequence",
        )?;
        // In the order of the table, so that its pages are visited once.
        self.dirty_keys.sort_unstable();
        for (partition, key) in self.dirty_keys.drain(..) {
            if let Some(last) = self.keys.get_mut(&partition).and_then(|keys| keys.get_mut(&key)) {
                last.dirty = false;
                store.execute(params![partition, key.as_str(), last.sequence])?;
            }
        }
        Ok(())
    }

    /// The transaction is durable.
    pub(super) fn committed(&mut self) {
        if self.key_count > KEYS {
            self.keys.clear();
            self.key_count = 0;
        }
    }

    /// The transaction failed, or somebody else has written: nothing known is certain.
    pub(super) fn forget(&mut self) {
        let pruned_to = std::mem::take(&mut self.pruned_to);
        *self = Self { pruned_to, ..Self::default() };
    }

    /// Removes a few keys that were not heard of for long, going on where it stopped.
    pub(super) fn prune_keys(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let (partition, key) = &self.pruned_to;
        let mut next = conn.prepare_cached(
            "SELECT k.partition, k.key, k.sequence < p.last - ?3 FROM keys k JOIN partitions p ON p.id = k.partition
             WHERE (k.partition, k.key) > (?1, ?2) ORDER BY k.partition, k.key LIMIT ?4",
        )?;
        let seen: Vec<(i64, String, bool)> = next
            .query_map(params![partition, key, STALE, LOOK], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        self.pruned_to =
            seen.last().map(|(partition, key, _)| (*partition, key.clone())).unwrap_or_default();
        let mut stale = seen.iter().filter(|(_, _, stale)| *stale).peekable();
        if stale.peek().is_none() {
            return Ok(());
        }
        // All in one transaction: each alone would be synced alone.
        let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
        for (partition, key, _) in stale {
            // What is known of it in memory stays right.
            tx.prepare_cached("DELETE FROM keys WHERE partition = ?1 AND key = ?2")?
                .execute(params![partition, key])?;
        }
        tx.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::sqlite::schema::SCHEMA;

    /// Keys that were not heard of for long are removed, many for the price of one transaction.
    #[test]
    fn stale_keys_are_removed_in_one_transaction() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let conn = Connection::open(directory.path().join("q.db"))?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "wal_autocheckpoint", 0)?;
        conn.execute_batch(SCHEMA)?;
        conn.execute("INSERT INTO partitions (id, queue, last) VALUES (1, 1, ?1)", [5 * STALE])?;
        conn.execute_batch("BEGIN")?;
        for number in 0..400 {
            let sequence = if number % 4 == 0 { 5 * STALE } else { number };
            conn.execute(
                "INSERT INTO keys VALUES (1, ?1, ?2)",
                params![number.to_string(), sequence],
            )?;
        }
        conn.execute_batch("COMMIT")?;
        let frames = || -> rusqlite::Result<i64> {
            conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))
        };
        // Copied into the file as a whole, the log begins anew.
        frames()?;
        State::default().prune_keys(&conn)?;
        let left: i64 = conn.query_row("SELECT count(*) FROM keys", [], |row| row.get(0))?;
        assert_eq!(left, 100);
        let written = frames()?;
        assert!((1..50).contains(&written), "{written} pages were written");
        Ok(())
    }
}
