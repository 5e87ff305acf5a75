//! Engines with one fault each: the suite must find every one of them.

use std::sync::Arc;

use async_trait::async_trait;
use resonant_common::join::Position;
use resonant_db::backend::{
    Access, Backend, BeginOptions, Capabilities, Connection, ParamRows, Streaming, Target,
};
use resonant_db::pool::Verdict;
use resonant_db::testing::{Place, cases};
use resonant_db::{Param, Result, Rows};

use super::conformance::Memory;

/// What is wrong with the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// None: the wrapper itself is sound.
    Sound,
    /// Reading connections can write.
    WritesWhereItShouldRead,
    /// Placeholders are numbered by where they stand.
    CountsPlaceholders,
    /// A rollback commits.
    CommitsARollback,
    /// A connection that comes back in a transaction says it is clean.
    HidesAnOpenTransaction,
    /// A bulk is not one transaction.
    AppliesHalfABulk,
    /// A statement that should write one row is lost.
    LosesAWrite,
    /// Of a stream only the first piece comes.
    CutsStreamsShort,
}

#[derive(Debug)]
struct Broken {
    engine: Memory,
    fault: Fault,
}

#[derive(Debug)]
struct BrokenBackend {
    engine: Arc<dyn Backend>,
    fault: Fault,
}

#[derive(Debug)]
struct BrokenConnection {
    inner: Box<dyn Connection>,
    fault: Fault,
    pieces: u32,
}

impl Place for Broken {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(BrokenBackend { engine: self.engine.backend(), fault: self.fault })
    }
    fn url(&self) -> String {
        self.engine.url()
    }
}

#[async_trait]
impl Backend for BrokenBackend {
    fn system(&self) -> &'static str {
        "broken"
    }
    fn capabilities(&self) -> Capabilities {
        self.engine.capabilities()
    }
    async fn connect(&self, target: &Target) -> Result<Box<dyn Connection>> {
        let mut target = target.clone();
        if self.fault == Fault::WritesWhereItShouldRead {
            target.access = Access::ReadWrite;
        }
        let inner = self.engine.connect(&target).await?;
        Ok(Box::new(BrokenConnection { inner, fault: self.fault, pieces: 0 }))
    }
}

#[async_trait]
impl Connection for BrokenConnection {
    async fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Rows> {
        self.inner.query(sql, params).await
    }
    async fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        if self.fault == Fault::CountsPlaceholders && sql.contains("$3, $2, $1") {
            return self.inner.execute(&sql.replace("$3, $2, $1", "$1, $2, $3"), params).await;
        }
        if self.fault == Fault::LosesAWrite && sql.starts_with("UPDATE") {
            return Ok(1);
        }
        self.inner.execute(sql, params).await
    }
    async fn execute_many(&mut self, sql: &str, rows: ParamRows) -> Result<u64> {
        if self.fault != Fault::AppliesHalfABulk {
            return self.inner.execute_many(sql, rows).await;
        }
        let mut affected = 0;
        for row in 0..rows.len() {
            let params: Vec<_> = (0..rows.width()).map(|at| rows.param(row, at)).collect();
            affected += self.inner.execute(sql, &params).await?;
        }
        Ok(affected)
    }
    async fn batch(&mut self, sql: &str) -> Result<()> {
        self.inner.batch(sql).await
    }
    async fn begin(&mut self, options: BeginOptions) -> Result<()> {
        self.inner.begin(options).await
    }
    async fn commit(&mut self) -> Result<()> {
        self.inner.commit().await
    }
    async fn rollback(&mut self) -> Result<()> {
        if self.fault == Fault::CommitsARollback && self.inner.verdict() == Verdict::Clean {
            return self.inner.commit().await;
        }
        self.inner.rollback().await
    }
    async fn ping(&mut self) -> Result<()> {
        self.inner.ping().await
    }
    async fn position(&mut self) -> Result<Option<Position>> {
        self.inner.position().await
    }
    fn streaming(&mut self) -> Option<&mut dyn Streaming> {
        match self.fault {
            Fault::CutsStreamsShort => Some(self),
            _ => self.inner.streaming(),
        }
    }
    fn verdict(&self) -> Verdict {
        match self.fault {
            Fault::HidesAnOpenTransaction => Verdict::Reuse,
            _ => self.inner.verdict(),
        }
    }
    async fn clean(&mut self) -> Result<()> {
        self.inner.clean().await
    }
    async fn close(self: Box<Self>) {
        self.inner.close().await;
    }
}

#[async_trait]
impl Streaming for BrokenConnection {
    async fn open_rows(&mut self, sql: &str, params: &[Param<'_>]) -> Result<()> {
        self.pieces = 0;
        self.inner.streaming().expect("it streams").open_rows(sql, params).await
    }
    async fn next_rows(&mut self) -> Result<Option<Rows>> {
        self.pieces += 1;
        let flow = self.inner.streaming().expect("it streams");
        let mut piece = flow.next_rows().await?;
        if self.pieces > 1 {
            while piece.is_some() {
                piece = flow.next_rows().await?;
            }
        }
        Ok(piece)
    }
    async fn open_copy_out(&mut self, _sql: &str) -> Result<()> {
        unreachable!("no case copies")
    }
    async fn next_copy(&mut self) -> Result<Option<Vec<u8>>> {
        unreachable!("no case copies")
    }
    async fn open_copy_in(&mut self, _sql: &str) -> Result<()> {
        unreachable!("no case copies")
    }
    async fn send_copy(&mut self, _data: &[u8]) -> Result<()> {
        unreachable!("no case copies")
    }
    async fn finish_copy_in(&mut self) -> Result<u64> {
        unreachable!("no case copies")
    }
}

/// Whether the engine passes a case.
async fn passes<F, Fut>(fault: Fault, case: F) -> bool
where
    F: FnOnce(&'static Broken) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    // The case runs in a task, so that its panic is an answer.
    let place: &'static Broken = Box::leak(Box::new(Broken { engine: Memory::new(), fault }));
    tokio::spawn(case(place)).await.is_ok()
}

macro_rules! finds {
    ($($fault:ident: $case:ident;)*) => {
        #[tokio::test]
        async fn the_suite_finds_every_fault() {
            $(
                let case = |place: &'static Broken| cases::$case(place);
                assert!(passes(Fault::Sound, case).await, "the sound engine fails {}", stringify!($case));
                let case = |place: &'static Broken| cases::$case(place);
                assert!(!passes(Fault::$fault, case).await, "{:?} is not found", Fault::$fault);
            )*
        }
    };
}

finds! {
    WritesWhereItShouldRead: a_read_only_connection_refuses_writes;
    CountsPlaceholders: placeholders_stand_for_their_number;
    CommitsARollback: a_commit_is_seen_and_a_rollback_is_not;
    HidesAnOpenTransaction: a_connection_left_in_a_transaction_is_cleaned;
    AppliesHalfABulk: a_failed_bulk_leaves_nothing;
    LosesAWrite: affected_rows_are_counted;
    CutsStreamsShort: rows_come_in_pieces;
}
