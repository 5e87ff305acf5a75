//! What the tap finds out about a session and the connection asks.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::apart::Apart;

/// What the last ReadyForQuery said of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// In no transaction.
    Idle,
    /// In a transaction.
    Open,
    /// In a transaction that has failed.
    Failed,
}

/// What the last CommandComplete said, as far as anybody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tag {
    Other,
    Commit,
    Rollback,
}

/// What is known of a session without asking the server, kept up to date by [`Tap`](super::tap::Tap).
#[derive(Debug, Default)]
pub(super) struct Facts {
    moving: Apart<Moving>,
    /// A command may have left something in the session.
    touched: AtomicBool,
    /// A command has touched what the driver relies on: the prepared statements.
    undermined: AtomicBool,
    /// How many settings of our own are under way: as many of the next SETs are no caller's.
    settings: AtomicU64,
    /// A pooler stands between here and the server.
    pooled: AtomicBool,
    standby: AtomicU8,
    /// It is the server that says so.
    reports: AtomicBool,
    /// When the session was opened, where times are noted.
    clock: OnceLock<Instant>,
    ended: AtomicBool,
    cause: Mutex<Option<String>>,
    news: Notify,
    /// How many wait for news: mostly nobody, and then telling costs a look.
    waiting: AtomicUsize,
}

/// What changes with each statement.
#[derive(Debug, Default)]
struct Moving {
    status: AtomicU8,
    tag: AtomicU8,
    /// The last statement, apart from those around a transaction, read rows and changed none.
    read: AtomicBool,
    /// Readers that share the session and have a read under way. Nobody counts them where it is one caller's.
    readers: AtomicU32,
    /// Requests that end in a ReadyForQuery, and how many of those have come.
    asked: AtomicU64,
    answered: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    /// In nanoseconds since the session was opened, when something last came, or was asked for after everything had come.
    heard: AtomicU64,
}

const UNKNOWN: u8 = 0;
const NO: u8 = 1;
const YES: u8 = 2;

impl Facts {
    /// A status as the server writes it.
    pub(super) fn ready(&self, status: u8) {
        self.moving.status.store(status, Ordering::Release);
        self.answer();
    }

    /// One more request has been answered. Whoever waits counted himself in before he looked: either he is seen here, or he
    /// has seen the answer.
    fn answer(&self) {
        self.moving.answered.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.news.notify_waiters();
        }
    }

    pub(super) fn status(&self) -> Status {
        match self.moving.status.load(Ordering::Acquire) {
            b'T' => Status::Open,
            b'E' => Status::Failed,
            _ => Status::Idle,
        }
    }

    /// A command tag as the server writes it, such as `INSERT 0 1`.
    pub(super) fn completed(&self, tag: &[u8]) {
        let kind = match tag {
            b"COMMIT" => Tag::Commit,
            b"ROLLBACK" => Tag::Rollback,
            _ => Tag::Other,
        };
        self.moving.tag.store(kind as u8, Ordering::Release);
        if !matches!(tag, b"COMMIT" | b"ROLLBACK" | b"BEGIN" | b"SET") {
            let reads = [b"SELECT ".as_slice(), b"FETCH ", b"MOVE "];
            let read = reads.iter().any(|read| tag.starts_with(read));
            self.moving.read.store(read, Ordering::Release);
        }
        if tag == b"SET" && self.is_own_setting() {
            return;
        }
        match super::hygiene::judge(tag) {
            super::hygiene::Trace::None => {}
            super::hygiene::Trace::Session => self.touched.store(true, Ordering::Release),
            super::hygiene::Trace::Statements => self.undermined.store(true, Ordering::Release),
        }
    }

    /// A setting of our own is sent: the tag of its answer tells nothing of callers.
    pub(super) fn expect_setting(&self) {
        self.settings.fetch_add(1, Ordering::AcqRel);
    }

    fn is_own_setting(&self) -> bool {
        let one_less = |settings: u64| settings.checked_sub(1);
        self.settings.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_ok()
    }

    /// Everything was answered.
    pub(super) fn expect_no_setting(&self) {
        self.settings.store(0, Ordering::Release);
    }

    pub(super) fn tag(&self) -> Tag {
        match self.moving.tag.load(Ordering::Acquire) {
            tag if tag == Tag::Commit as u8 => Tag::Commit,
            tag if tag == Tag::Rollback as u8 => Tag::Rollback,
            _ => Tag::Other,
        }
    }

    /// Whether the last statement, apart from those around a transaction, read rows and changed none.
    pub(super) fn only_read(&self) -> bool {
        self.moving.read.load(Ordering::Acquire)
    }

    /// From here on what is sent is for a pooler. Nothing may be under way.
    pub(super) fn set_pooled(&self) {
        self.pooled.store(true, Ordering::Release);
        // What it said of the server may be of any server, or of one that is no more.
        self.standby.store(UNKNOWN, Ordering::Release);
    }

    pub(super) fn is_pooled(&self) -> bool {
        self.pooled.load(Ordering::Acquire)
    }

    /// The server takes data in now, and so has overlooked the Sync that was sent before them.
    pub(super) fn overlooked(&self) {
        self.answer();
    }

    /// The server reported one of its settings.
    pub(super) fn parameter(&self, name: &[u8], value: &[u8]) {
        if name == b"in_hot_standby" {
            self.reports.store(true, Ordering::Release);
            self.set_standby(value == b"on");
        }
    }

    /// Whether the node is a standby, where it says so (from version 14 on).
    pub(super) fn standby(&self) -> Option<bool> {
        match self.standby.load(Ordering::Acquire) {
            UNKNOWN => None,
            value => Some(value == YES),
        }
    }

    /// Whether the server itself says what it is.
    pub(super) fn reports_standby(&self) -> bool {
        self.reports.load(Ordering::Acquire) && !self.is_pooled()
    }

    pub(super) fn set_standby(&self, standby: bool) {
        self.standby.store(if standby { YES } else { NO }, Ordering::Release);
    }

    pub(super) fn count_asked(&self) {
        if self.pending() == 0 {
            // Until now there was nothing to be heard.
            self.note_time();
        }
        add(&self.moving.asked, 1);
    }

    /// How many requests have not been answered.
    pub(super) fn pending(&self) -> u64 {
        let answered = self.moving.answered.load(Ordering::Acquire);
        self.moving.asked.load(Ordering::Acquire).saturating_sub(answered)
    }

    /// One more reader of those who share the session has a read under way; how many had one before.
    pub(super) fn join(&self) -> u32 {
        self.moving.readers.fetch_add(1, Ordering::AcqRel)
    }

    pub(super) fn leave(&self) {
        self.moving.readers.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn readers(&self) -> u32 {
        self.moving.readers.load(Ordering::Acquire)
    }

    /// Whether more readers than one have a read under way of which the server has not been asked, or which it has answered: they
    /// are about to ask, or to ask again.
    pub(super) fn expects_more(&self) -> bool {
        let readers = u64::from(self.readers());
        readers > 1 && readers > self.pending() + 1
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        add(&self.moving.sent, bytes as u64);
    }

    pub(super) fn count_received(&self, bytes: usize) {
        add(&self.moving.received, bytes as u64);
        self.note_time();
    }

    fn note_time(&self) {
        if let Some(clock) = self.clock.get() {
            let heard = u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.moving.heard.store(heard, Ordering::Release);
        }
    }

    /// Notes from now on when something comes.
    pub(super) fn note_times(&self) {
        let _ = self.clock.set(Instant::now());
    }

    /// For how long nothing has come that was asked for; nothing where that is not noted.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        let Some(clock) = self.clock.get() else { return Duration::ZERO };
        let heard = Duration::from_nanos(self.moving.heard.load(Ordering::Acquire));
        now.saturating_duration_since(*clock).saturating_sub(heard)
    }

    /// Bytes that have left so far: what has not, the server has not seen.
    pub(super) fn sent(&self) -> u64 {
        self.moving.sent.load(Ordering::Acquire)
    }

    /// Bytes that have come so far: a sign of life.
    pub(super) fn received(&self) -> u64 {
        self.moving.received.load(Ordering::Acquire)
    }

    /// The login is over: from here on requests and answers are counted.
    pub(super) fn start_counting(&self) {
        self.moving.asked.store(0, Ordering::Release);
        self.moving.answered.store(0, Ordering::Release);
    }

    /// Waits until everything that was sent has been answered, so that the status is that of now; or the session ended.
    pub(super) async fn settled(&self) {
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let news = self.news.notified();
            if self.moving.answered.load(Ordering::SeqCst)
                >= self.moving.asked.load(Ordering::Acquire)
                || self.has_ended()
            {
                return;
            }
            news.await;
        }
    }

    pub(super) fn touch(&self) {
        self.touched.store(true, Ordering::Release);
    }

    pub(super) fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Acquire)
    }

    pub(super) fn untouch(&self) {
        self.touched.store(false, Ordering::Release);
    }

    pub(super) fn is_undermined(&self) -> bool {
        self.undermined.load(Ordering::Acquire)
    }

    /// The session is over, for a cause where one is known.
    pub(super) fn end(&self, cause: Option<String>) {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = cause;
        self.ended.store(true, Ordering::Release);
        self.news.notify_waiters();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn cause(&self) -> Option<String> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Adds to what nobody but the tap writes, which is at one place at a time: that is cheaper than for all to write.
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Ordering::Relaxed) + more, Ordering::Release);
}

/// Somebody who waits, counted.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_question_where_none_was_open() {
        let facts = Facts::default();
        facts.note_times();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(facts.silence(Instant::now()), Duration::from_secs(10));
        facts.count_asked();
        assert_eq!(facts.silence(Instant::now()), Duration::ZERO, "it was asked just now");
        tokio::time::advance(Duration::from_secs(1)).await;
        facts.count_asked();
        let silence = facts.silence(Instant::now());
        assert_eq!(silence, Duration::from_secs(1), "the first question is still open");
        facts.count_received(5);
        facts.ready(b'I');
        assert_eq!(facts.silence(Instant::now()), Duration::ZERO);
    }
}
