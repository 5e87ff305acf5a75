//! The cases of [`conformance!`](crate::conformance), each against a new target.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::error::ErrorKind;
use crate::target::ScaleTarget;

async fn wanted(target: &impl ScaleTarget) -> u32 {
    match target.read().await {
        Ok(state) => state.scale.wanted,
        Err(error) => panic!("it cannot be read: {error}"),
    }
}

async fn set(target: &impl ScaleTarget, replicas: u32) {
    if let Err(error) = target.set(replicas).await {
        panic!("it does not take {replicas}: {error}");
    }
}

/// What was asked for is what is read, at once.
pub async fn what_was_asked_for_is_read<T: ScaleTarget>(make: impl AsyncFn(u32) -> T) {
    let target = make(2).await;
    assert_eq!(wanted(&target).await, 2, "it was made with 2");
    for replicas in [5, 1, 3] {
        set(&target, replicas).await;
        assert_eq!(wanted(&target).await, replicas);
    }
}

/// None is a number like others.
pub async fn it_goes_to_none_and_back<T: ScaleTarget>(make: impl AsyncFn(u32) -> T) {
    let target = make(3).await;
    set(&target, 0).await;
    assert_eq!(wanted(&target).await, 0);
    set(&target, 2).await;
    assert_eq!(wanted(&target).await, 2);
}

/// Asking for what was asked for does nothing more.
pub async fn asking_again_changes_nothing<T: ScaleTarget>(make: impl AsyncFn(u32) -> T) {
    let target = make(1).await;
    for _ in 0..3 {
        set(&target, 4).await;
        assert_eq!(wanted(&target).await, 4);
    }
}

/// Whoever reads changes nothing, however often.
pub async fn reading_changes_nothing<T: ScaleTarget>(make: impl AsyncFn(u32) -> T) {
    let target = make(3).await;
    for _ in 0..10 {
        assert_eq!(wanted(&target).await, 3);
    }
}

/// Of two changes at once one has the last word; the other may be refused as having come too late.
pub async fn two_changes_at_once_come_to_one_of_them<T: ScaleTarget>(make: impl AsyncFn(u32) -> T) {
    let target = make(3).await;
    for _ in 0..5 {
        let (one, other) = tokio::join!(target.set(2), target.set(6));
        for error in [one, other].into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        }
        let wanted = wanted(&target).await;
        assert!(wanted == 2 || wanted == 6, "{wanted} of 2 and 6");
    }
}

/// A change that is dropped was made, not, or in part; what is read says which, and it can be made again.
pub async fn a_dropped_change_can_be_made_again<T: ScaleTarget>(make: impl AsyncFn(u32) -> T) {
    let target = make(2).await;
    for polls in 0..12 {
        {
            let mut change = pin!(target.set(5));
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..polls {
                if let Poll::Ready(changed) = change.as_mut().poll(&mut context) {
                    if let Err(error) = changed {
                        panic!("it does not take 5: {error}");
                    }
                    break;
                }
                // What it waits for gets a turn.
                tokio::task::yield_now().await;
            }
        }
        let between = wanted(&target).await;
        assert!((2..=5).contains(&between), "{between} between 2 and 5");
        set(&target, 5).await;
        assert_eq!(wanted(&target).await, 5);
        set(&target, 2).await;
    }
}
