//! A timer for one wait after the other.
//!
//! Arming a timer of its own for each statement costs more than it seems: it goes into the runtime's wheel and out again,
//! and where it is the next one due it wakes the thread that keeps the time, each time. This one stays armed when the wait
//! is over, and the next wait moves it on only if it rings meanwhile.
//!
//! A timer rings only as long as the runtime it was made on is driven, and polling it after that one's end is a panic. So
//! whoever waits on another runtime has a timer of that one.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, Sleep, sleep_until};

/// The timer of a session, while nobody uses it.
pub(super) struct Alarm {
    /// The runtime it was made on.
    home: Id,
    timer: Mutex<Option<Timer>>,
}

type Timer = Pin<Box<Sleep>>;

impl Alarm {
    /// To be made where the session lives: there it can be used as long as the session can.
    pub(super) fn new() -> Self {
        let timer = Box::pin(sleep_until(Instant::now()));
        Self { home: Handle::current().id(), timer: Mutex::new(Some(timer)) }
    }

    /// For a wait. Who waits beside somebody else, or on another runtime, has a timer of his own.
    pub(super) fn borrow(&self) -> Borrowed<'_> {
        let at_home = Handle::try_current().is_ok_and(|here| here.id() == self.home);
        let timer = if at_home { self.swap(None) } else { None };
        Borrowed { lender: timer.is_some().then_some(self), timer }
    }

    fn swap(&self, timer: Option<Timer>) -> Option<Timer> {
        let mut kept = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut kept, timer)
    }
}

/// Whoever has it waits. Dropping it gives back what was lent, as it is: still armed, and with the waker of whoever waited
/// last, who may be woken once for nothing.
pub(super) struct Borrowed<'a> {
    /// Whose timer it is; nobody's where it was made for this wait.
    lender: Option<&'a Alarm>,
    timer: Option<Timer>,
}

impl Borrowed<'_> {
    /// Whether `due` has come; if not, wakes when it does. Now and then it wakes earlier.
    pub(super) fn poll(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            // It was set for a wait that is over.
            timer.as_mut().reset(due);
        }
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(lender) = self.lender {
            lender.swap(self.timer.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use futures::FutureExt;
    use tokio::runtime::{Builder, Runtime};
    use tokio::time::timeout;

    use super::*;

    /// Waits for `time`; how long that took.
    async fn wait(alarm: &Alarm, time: Duration) -> Duration {
        let (mut timer, began) = (alarm.borrow(), Instant::now());
        poll_fn(|cx| timer.poll(began + time, cx)).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_ends_when_it_is_due_whatever_the_one_before_was() {
        let (alarm, [short, long]) = (Alarm::new(), [10, 500].map(Duration::from_millis));
        for time in [long, short, short, long, Duration::ZERO, long] {
            assert_eq!(wait(&alarm, time).await, time);
            // One that is left early leaves it armed, for later or for earlier than the next wants.
            for left in [short, long] {
                assert!(wait(&alarm, left).now_or_never().is_none());
                tokio::time::advance(Duration::from_millis(3)).await;
            }
            assert_eq!(wait(&alarm, time).await, time);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_beside_another_has_his_own_time() {
        let (alarm, [short, long]) = (Alarm::new(), [10, 500].map(Duration::from_millis));
        let waits = futures::join!(wait(&alarm, long), wait(&alarm, short), wait(&alarm, long));
        assert_eq!(waits, (long, short, long));
        assert_eq!(wait(&alarm, short).await, short);
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_time().build().expect("a runtime")
    }

    const SHORT: Duration = Duration::from_millis(5);
    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn a_timer_of_a_runtime_that_has_ended_is_nobodys() {
        let (home, other) = (runtime(), runtime());
        let alarm = home.block_on(async { Alarm::new() });
        other.block_on(async {
            // Both are left, the one that came later last.
            let mut waits = [wait(&alarm, SHORT), wait(&alarm, SHORT)].map(Box::pin);
            for wait in &mut waits {
                assert!(futures::poll!(wait).is_pending());
            }
        });
        drop(other);
        let waited = home.block_on(async { timeout(LIMIT, wait(&alarm, SHORT)).await });
        assert!(waited.is_ok(), "its timer is another runtime's");
    }

    #[test]
    fn a_wait_ends_where_nobody_drives_the_runtime_of_the_session() {
        let (home, other) = (runtime(), runtime());
        let alarm = home.block_on(async { Alarm::new() });
        let waited = other.block_on(async { timeout(LIMIT, wait(&alarm, SHORT)).await });
        assert!(waited.is_ok(), "its timer is another runtime's");
    }
}
