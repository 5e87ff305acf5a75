//! Counts of unfinished batches by epoch, so that a flush knows when exactly the batches before it are done.

use std::collections::VecDeque;

/// A flush ends an epoch; batches never span two.
#[derive(Debug)]
pub(crate) struct Epochs {
    /// The epoch of the first count.
    first: u64,
    /// Unfinished batches of each epoch from `first` to the current one. Never empty.
    counts: VecDeque<usize>,
}

impl Epochs {
    pub(crate) fn new() -> Self {
        Self { first: 0, counts: VecDeque::from([0]) }
    }

    #[inline]
    pub(crate) fn current(&self) -> u64 {
        self.first + (self.counts.len() as u64 - 1)
    }

    #[inline]
    pub(crate) fn opened(&mut self) -> u64 {
        if let Some(count) = self.counts.back_mut() {
            *count += 1;
        }
        self.current()
    }

    #[inline]
    pub(crate) fn ended(&mut self, epoch: u64) {
        let index = usize::try_from(epoch.saturating_sub(self.first)).unwrap_or(usize::MAX);
        if let Some(count) = self.counts.get_mut(index) {
            *count -= 1;
        }
        while self.counts.len() > 1 && self.counts.front() == Some(&0) {
            self.counts.pop_front();
            self.first += 1;
        }
    }

    /// Ends the current epoch and returns it. An epoch without unfinished batches is not ended but waits for its first, so
    /// epochs are never more than unfinished batches and one.
    pub(crate) fn flush(&mut self) -> Option<u64> {
        let current = self.current();
        if self.counts.back() == Some(&0) {
            return current.checked_sub(1);
        }
        self.counts.push_back(0);
        Some(current)
    }

    /// Whether all batches of `epoch` and before are done.
    pub(crate) fn settled(&self, epoch: u64) -> bool {
        self.first > epoch
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.len() == 1 && self.counts.front() == Some(&0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_waits_for_the_batches_before_it_only() {
        let mut epochs = Epochs::new();
        assert_eq!(epochs.flush(), None);
        let first = epochs.opened();
        let flush = epochs.flush().unwrap();
        let second = epochs.opened();
        assert_ne!(first, second);
        assert!(!epochs.settled(flush));
        epochs.ended(first);
        assert!(epochs.settled(flush) && !epochs.is_empty());
        epochs.ended(second);
        assert!(epochs.is_empty());
    }

    #[test]
    fn later_epochs_may_end_first() {
        let mut epochs = Epochs::new();
        let first = epochs.opened();
        epochs.flush();
        let second = epochs.opened();
        let flush = epochs.flush().unwrap();
        epochs.ended(second);
        assert!(!epochs.settled(flush), "the first is still running");
        epochs.ended(first);
        assert!(epochs.settled(flush));
    }

    #[test]
    fn flushing_again_and_again_keeps_no_more_counts() {
        let mut epochs = Epochs::new();
        epochs.opened();
        let flush = epochs.flush();
        for _ in 0..1000 {
            assert_eq!(epochs.flush(), flush);
        }
        assert_eq!(epochs.counts.len(), 2);
    }
}
