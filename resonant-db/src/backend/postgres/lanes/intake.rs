//! An answer on its way in, which its reader may stop taking.
//!
//! The driver hands answers over one after the other, and waits with all of them for a reader who does not come for his:
//! one whose task is busy elsewhere, or whose future lies in a stream that nobody polls. What he has left is little,
//! but what is behind it belongs to others. So an answer is taken in where the keeper gets at it too. A reader who was
//! called and has not come is cut off when the lane stands still: the rest of his answer is dropped, the others go on, and he
//! reads again on a connection of his own, when he comes back.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// The work of taking an answer in.
type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One answer.
struct Intake<T> {
    /// Nothing when it is over, or was cut off.
    work: Mutex<Option<Work<T>>>,
    /// There has been something to take since the reader last looked.
    called: AtomicBool,
    reader: AtomicWaker,
}

impl<T> Intake<T> {
    fn work(&self) -> MutexGuard<'_, Option<Work<T>>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let work = self.work().take();
        drop(work);
    }
}

impl<T: 'static> Wake for Intake<T> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.called.store(true, Ordering::Release);
        self.reader.wake();
    }
}

/// The answers that are on their way in on a lane.
pub(super) struct Intakes<T>(Mutex<Places<T>>);

struct Places<T> {
    places: Vec<Option<Arc<Intake<T>>>>,
    free: Vec<usize>,
}

impl<T> Default for Intakes<T> {
    fn default() -> Self {
        Self(Mutex::new(Places { places: Vec::new(), free: Vec::new() }))
    }
}

impl<T: 'static> Intakes<T> {
    /// Takes an answer in, as `work` does; `None` when it was cut off.
    pub(super) fn take(&self, work: impl Future<Output = T> + Send + 'static) -> Taking<'_, T> {
        let intake = Arc::new(Intake {
            work: Mutex::new(Some(Box::pin(work))),
            called: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        });
        let mut all = self.lock();
        let place = match all.free.pop() {
            Some(place) => place,
            None => {
                all.places.push(None);
                all.places.len() - 1
            }
        };
        all.places[place] = Some(Arc::clone(&intake));
        Taking { of: self, intake, place }
    }

    /// Cuts off whoever was called and has not come; how many those were.
    pub(super) fn cut_off(&self) -> usize {
        let all: Vec<_> = self.lock().places.iter().flatten().cloned().collect();
        let idle = all.iter().filter(|intake| intake.called.load(Ordering::Acquire));
        idle.map(|intake| {
            intake.end();
            intake.reader.wake();
        })
        .count()
    }

    fn lock(&self) -> MutexGuard<'_, Places<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader at his answer.
pub(super) struct Taking<'a, T: 'static> {
    of: &'a Intakes<T>,
    intake: Arc<Intake<T>>,
    place: usize,
}

impl<T> Future for Taking<'_, T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let intake = &self.intake;
        intake.reader.register(cx.waker());
        let mut work = intake.work();
        let Some(taking) = work.as_mut() else { return Poll::Ready(None) };
        intake.called.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(intake));
        let taken = taking.as_mut().poll(&mut Context::from_waker(&waker));
        if taken.is_ready() {
            *work = None;
        }
        taken.map(Some)
    }
}

impl<T: 'static> Drop for Taking<'_, T> {
    fn drop(&mut self) {
        let mut all = self.of.lock();
        all.places[self.place] = None;
        all.free.push(self.place);
        drop(all);
        // Its waker leads back to it.
        self.intake.end();
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::oneshot;
    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn only_who_was_called_and_did_not_come_is_cut_off() {
        let intakes = Intakes::default();
        let (answer, one) = oneshot::channel::<u8>();
        let (_silent, two) = oneshot::channel::<u8>();
        let mut one = intakes.take(one);
        let mut two = intakes.take(two);
        assert!(poll!(&mut one).is_pending() && poll!(&mut two).is_pending());
        assert_eq!(intakes.cut_off(), 0, "nobody was called");
        answer.send(7).expect("somebody waits");
        assert_eq!(intakes.cut_off(), 1);
        assert_eq!(poll!(&mut one), Poll::Ready(None));
        assert!(poll!(&mut two).is_pending());
    }

    #[tokio::test]
    async fn who_comes_gets_the_answer_and_nothing_is_kept() {
        let intakes = Intakes::default();
        let held = Arc::new(());
        for _ in 0..3 {
            let mut readers = Vec::new();
            for n in 0..5 {
                let (answer, taken) = oneshot::channel::<u8>();
                let kept = Arc::clone(&held);
                let mut reader = intakes.take(async move {
                    let taken = taken.await;
                    drop(kept);
                    taken
                });
                assert!(poll!(&mut reader).is_pending());
                answer.send(n).expect("somebody waits");
                readers.push(reader);
            }
            // One is dropped with its answer, the others take theirs.
            drop(readers.remove(1));
            let taken = futures::future::join_all(readers).await;
            assert_eq!(taken, [0, 2, 3, 4].map(|n| Some(Ok(n))));
        }
        assert_eq!((Arc::strong_count(&held), intakes.lock().places.len()), (1, 5));
        assert_eq!(intakes.cut_off(), 0);
    }
}
