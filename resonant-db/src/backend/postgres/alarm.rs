//! A timer for one wait after the other.
//!
//! Arming a timer of its own for each statement costs more than it seems: it goes into the runtime's wheel and out again,
//! and where it is the next one due it wakes the thread that keeps the time, each time. This one stays armed when the wait
//! is over, and the next wait moves it on only if it rings meanwhile.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// The timer of a session, while nobody uses it.
pub(super) struct Alarm(Mutex<Option<Pin<Box<Sleep>>>>);

impl Alarm {
    /// To be made where the session lives: there it can be used as long as the session can.
    pub(super) fn new() -> Self {
        Self(Mutex::new(Some(Box::pin(sleep_until(Instant::now())))))
    }

    /// For a wait. Who waits beside somebody else has a timer of his own.
    pub(super) fn borrow(&self) -> Borrowed<'_> {
        let timer = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Borrowed { of: self, timer }
    }
}

/// Whoever has it waits; dropping it gives it back as it is.
pub(super) struct Borrowed<'a> {
    of: &'a Alarm,
    timer: Option<Pin<Box<Sleep>>>,
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
        if let Some(timer) = self.timer.take() {
            *self.of.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use futures::FutureExt;

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
}
