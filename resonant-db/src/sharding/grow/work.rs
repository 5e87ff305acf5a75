//! The steps before the switch: what captures changes, the copy, and bringing it after.

use tokio::time::{Instant, sleep};

use super::link::{Link, SILENT, meanwhile, pour};
use super::report::MoveEvent;
use super::steps::MoveState;
use super::tables::{GUARDS, Table, array, text};
use super::{Mover, OPERATION, hash};
use crate::sharding::live::{SWITCHING, TABLES};
use crate::{Error, ErrorKind, Result};

/// A move that is under way: its record, and a session with each shard.
#[derive(Debug)]
pub(super) struct Work<'m, 'd> {
    pub(super) mover: &'m Mover<'d>,
    pub(super) source: Link,
    pub(super) target: Link,
    pub(super) tables: Vec<Table>,
    pub(super) buckets: Vec<u32>,
    pub(super) epoch: i64,
    pub(super) state: MoveState,
}

/// A round of changes as small as this is the last one before a switch.
const FEW: u64 = 200;
/// So many rounds are made to get there.
const ROUNDS: u32 = 50;

impl Work<'_, '_> {
    fn bucket(&self, table: &Table, column: &str) -> String {
        // Inspected: every table has one.
        let buckets = self.mover.buckets().ok();
        let sql = buckets.and_then(|buckets| hash::bucket(buckets, table.key_type, column));
        sql.unwrap_or_else(|| "NULL".to_owned())
    }

    /// The tables, in their order: what the record goes by.
    pub(super) fn names(&self) -> String {
        self.tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>().join(",")
    }

    /// The functions of the triggers, that write down changes or do not.
    pub(super) fn guards(&self, capture: bool) -> String {
        let each = self.tables.iter().enumerate();
        each.map(|(at, table)| {
            table.guard_function(capture.then_some(at), |column| self.bucket(table, column))
        })
        .collect()
    }

    /// Writes down that a step has been reached.
    pub(super) async fn reach(&mut self, state: MoveState) -> Result<()> {
        let state_text = text(&state.to_string());
        self.source.run(&format!("UPDATE resonant_move.record SET state = {state_text}")).await?;
        self.state = state;
        self.mover.tell(MoveEvent::Reached(state)).await;
        Ok(())
    }

    /// Makes what the move needs. Whatever an earlier attempt has made is made anew.
    pub(super) async fn prepare(&mut self) -> Result<()> {
        let (from, to) = (text(&self.source.name), text(&self.target.name));
        let numbers = array(&self.buckets);
        let notebooks: String =
            self.tables.iter().enumerate().map(|(at, table)| table.notebook(at)).collect();
        let (epoch, tables) = (self.epoch, text(&self.names()));
        self.source
            .run(&format!(
                "{TABLES} {} {GUARDS}
                 DROP SCHEMA IF EXISTS resonant_move CASCADE;
                 CREATE SCHEMA resonant_move;
                 CREATE TABLE resonant_move.record (source text, target text, epoch bigint, state text, buckets integer[], tables text);
                 INSERT INTO resonant_move.record VALUES ({from}, {to}, {epoch}, 'preparing', {numbers}, {tables});
                 {notebooks}",
                hash::functions(),
            ))
            .await?;
        let rooms: String =
            self.tables.iter().enumerate().map(|(at, table)| table.waiting_room(at)).collect();
        self.target
            .run(&format!(
                "{TABLES} DROP SCHEMA IF EXISTS resonant_move CASCADE;
                 CREATE SCHEMA resonant_move;
                 CREATE TABLE resonant_move.origin AS SELECT {from}::text AS source, {epoch}::bigint AS epoch;
                 {rooms}
                 UPDATE resonant.place SET phase = 1, version = version + 1;"
            ))
            .await?;
        self.mover.tell(MoveEvent::Reached(MoveState::Preparing)).await;
        self.capture().await?;
        self.state = MoveState::Preparing.next(self.tables.len()).unwrap_or(MoveState::Following);
        self.mover.tell(MoveEvent::Reached(self.state)).await;
        Ok(())
    }

    /// From here on every change of a row that leaves is written down. Whoever is writing is waited for, so that none is
    /// missed; who waits behind that waits as long as the lock's time-out at most.
    async fn capture(&mut self) -> Result<()> {
        let names: Vec<String> = self.tables.iter().map(Table::quoted).collect();
        let triggers: String = self.tables.iter().map(Table::guard_triggers).collect();
        let next = MoveState::Preparing.next(self.tables.len()).unwrap_or(MoveState::Following);
        let sql = format!(
            "{} {} {triggers}
             INSERT INTO resonant.bucket SELECT b, 'leaving', {}, {} FROM unnest({}) b
             ON CONFLICT (bucket) DO UPDATE SET state = 'leaving', owner = excluded.owner, epoch = excluded.epoch;
             UPDATE resonant.fence SET turn = turn + 1;
             UPDATE resonant.place SET phase = 1, version = version + 1;
             UPDATE resonant_move.record SET state = {};",
            lock(&names),
            self.guards(true),
            text(&self.target.name),
            self.epoch,
            array(&self.buckets),
            text(&next.to_string()),
        );
        self.undisturbed(&sql).await
    }

    /// Runs statements that need locks of whole tables in one transaction, again and again until nobody is in the way for too
    /// long.
    pub(super) async fn undisturbed(&mut self, sql: &str) -> Result<()> {
        let usual = self.mover.lock_timeout.as_millis().max(1);
        let mut attempt = 1;
        loop {
            // A vacuum that nobody asked for gives way to who has waited for `deadlock_timeout`, a second.
            let limit = if attempt % 5 == 0 { usual.max(1_500) } else { usual };
            let sql = format!("{SILENT} SET LOCAL lock_timeout = {limit}; {sql}");
            self.source.begin().await?;
            match self.source.run(&sql).await {
                Ok(()) => return self.source.commit().await,
                Err(error) => {
                    self.source.rollback().await?;
                    if error.kind() != ErrorKind::Conflict || attempt >= self.mover.attempts {
                        return Err(error);
                    }
                }
            }
            attempt += 1;
            self.mover.tell(MoveEvent::GaveWay).await;
            sleep(self.mover.lock_timeout).await;
        }
    }

    /// Copies one table.
    pub(super) async fn copy(&mut self, at: u32) -> Result<()> {
        let index = at as usize;
        if let Some(table) = self.tables.get(index) {
            let find = table.find_keys(index, &self.buckets, &self.bucket(table, "k"));
            self.source.run(&format!("{find}; ANALYZE resonant_move.keys_{at}")).await?;
            self.target.begin().await?;
            self.target.run(&format!("TRUNCATE resonant_move.rows_{at}")).await?;
            let (out, into) = (table.copy_out(index), table.copy_in(index));
            let rows = pour(&mut self.source, &out, &mut self.target, &into).await?;
            self.target.commit().await?;
            self.target.run(&format!("ANALYZE resonant_move.rows_{at}")).await?;
            let table = table.name.clone();
            self.mover.tell(MoveEvent::Copied { table, rows }).await;
        }
        let next = MoveState::Copying { tables: at }.next(self.tables.len());
        self.reach(next.unwrap_or(MoveState::Following)).await
    }

    /// Brings what was changed on the source after, once. Answers how many rows those were.
    ///
    /// The source forgets what it wrote down once the target has it: stopped in between it is done again, and comes to the
    /// same rows.
    pub(super) async fn round(&mut self) -> Result<u64> {
        self.source.begin().await?;
        self.target.begin().await?;
        let changes = self.changes().await?;
        self.target.commit().await?;
        self.source.commit().await?;
        for at in 0..self.tables.len() {
            if changes > 0 {
                // Else what was deleted there would be gone through again each time.
                self.source.run(&format!("VACUUM resonant_move.log_{at}")).await?;
            }
        }
        Ok(changes)
    }

    /// The same within transactions that are open.
    pub(super) async fn changes(&mut self) -> Result<u64> {
        let mut changes = 0;
        if self.tables.is_empty() {
            return Ok(0);
        }
        let any = (0..self.tables.len()).map(|at| {
            format!("SELECT {at}::bigint AS at, EXISTS (SELECT 1 FROM resonant_move.log_{at}) AS any_row")
        });
        let any = format!("{} ORDER BY 1", any.collect::<Vec<_>>().join(" UNION ALL "));
        let any: Vec<(i64, bool)> = self.source.rows(&any).await?;
        for (at, table) in self.tables.iter().enumerate() {
            if any.get(at).is_some_and(|(_, any)| !any) {
                continue;
            }
            let (out, into) = (table.changes_out(at), table.changes_in(at));
            changes += pour(&mut self.source, &out, &mut self.target, &into).await?;
            meanwhile(&mut self.source, self.target.run(&table.apply(at))).await?;
        }
        Ok(changes)
    }

    /// Brings changes after until few are left.
    pub(super) async fn follow(&mut self) -> Result<()> {
        for _ in 0..ROUNDS {
            let rows = self.round().await?;
            self.mover.tell(MoveEvent::Followed { rows }).await;
            if rows <= FEW {
                return Ok(());
            }
        }
        let message =
            "rows change faster than they can be brought after; resume when there is less to do";
        Err(Error::new(ErrorKind::Overloaded, OPERATION, message))
    }

    /// Says on both shards that buckets are about to go, and waits until every process knows it or has to ask.
    pub(super) async fn announce(&mut self) -> Result<()> {
        let sql = format!(
            "UPDATE resonant.place SET phase = {SWITCHING}, version = version + 1 WHERE phase <> {SWITCHING}"
        );
        self.target.run(&sql).await?;
        self.source.run(&sql).await?;
        let until = Instant::now() + crate::sharding::live::ANNOUNCED;
        while Instant::now() < until {
            self.round().await?;
            sleep(std::time::Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// Keeps writers out of tables until the end of the transaction, and waits for those inside.
pub(super) fn lock(tables: &[String]) -> String {
    match tables.is_empty() {
        true => String::new(),
        false => format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE;", tables.join(", ")),
    }
}
