//! The active keys: those with items queued or batches running. A key that is neither costs nothing.

use std::collections::HashMap;

use super::batch::Batches;

use crate::key::Key;

/// Emptied queues are kept for the next key, up to this many.
const SPARE: usize = 64;

#[derive(Debug)]
pub(super) struct KeyQueue<K, I, C> {
    pub(super) key: K,
    pub(super) batches: Batches<I, C>,
    pub(super) running: usize,
}

#[derive(Debug)]
pub(super) struct Keys<K, I, C> {
    index: HashMap<K, usize>,
    slots: Vec<Option<KeyQueue<K, I, C>>>,
    free: Vec<usize>,
    /// The key that became idle last. It keeps its slot until another becomes idle, because it is mostly the next to come.
    resting: Option<usize>,
    /// Where the last item went. The next one mostly has the same key, and comparing costs less than hashing.
    last: usize,
    spare: Vec<Batches<I, C>>,
}

impl<K: Key, I, C> Keys<K, I, C> {
    pub(super) fn new() -> Self {
        Self {
            index: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            resting: None,
            last: 0,
            spare: Vec::new(),
        }
    }

    /// How many keys are active.
    pub(super) fn len(&self) -> usize {
        self.index.len() - usize::from(self.resting.is_some())
    }

    /// The slot and the queue of `key`, which becomes active.
    #[inline]
    pub(super) fn queue(&mut self, key: K) -> (usize, &mut KeyQueue<K, I, C>) {
        let known = match self.get(self.last) {
            Some(queue) if queue.key == key => Some(self.last),
            _ => self.index.get(&key).copied(),
        };
        let slot = match known {
            Some(slot) => {
                self.resting.take_if(|resting| *resting == slot);
                slot
            }
            None => {
                let slot = self.free.pop().unwrap_or(self.slots.len());
                if slot == self.slots.len() {
                    self.slots.push(None);
                }
                self.index.insert(key.clone(), slot);
                slot
            }
        };
        self.last = slot;
        let queue = self.slots[slot].get_or_insert_with(|| {
            let batches = self.spare.pop().unwrap_or_default();
            KeyQueue { key, batches, running: 0 }
        });
        (slot, queue)
    }

    #[inline]
    pub(super) fn get(&self, slot: usize) -> Option<&KeyQueue<K, I, C>> {
        self.slots.get(slot)?.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut KeyQueue<K, I, C>> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Puts the key at `slot` to rest if it has nothing queued and nothing running, and frees the one that rested before.
    #[inline]
    pub(super) fn rest_if_idle(&mut self, slot: usize) {
        let idle = |queue: &KeyQueue<K, I, C>| queue.batches.is_empty() && queue.running == 0;
        if !self.get(slot).is_some_and(idle) {
            return;
        }
        let before = self.resting.replace(slot).filter(|before| *before != slot);
        if let Some(queue) = before.and_then(|before| self.slots[before].take()) {
            self.index.remove(&queue.key);
            self.free.extend(before);
            if self.spare.len() < SPARE {
                self.spare.push(queue.batches);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The slots of all active keys.
    pub(super) fn active(&self) -> Vec<usize> {
        self.index.values().copied().collect()
    }
}
