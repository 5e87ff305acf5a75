//! Things known of statements, the least recently used going first.

use std::collections::HashMap;

use tokio_postgres::Statement;

use super::rows::Layout;

/// A statement as a connection keeps it prepared. Whichever is dropped is closed on the server by the driver.
pub(super) struct Known {
    pub(super) statement: Statement,
    /// It may leave something behind in the session.
    pub(super) suspicious: bool,
    pub(super) layout: Layout,
}

pub(super) struct Recent<T> {
    known: HashMap<Box<str>, (T, u64)>,
    capacity: usize,
    clock: u64,
}

impl<T: Clone> Recent<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { known: HashMap::new(), capacity, clock: 0 }
    }

    pub(super) fn get(&mut self, sql: &str) -> Option<T> {
        self.clock += 1;
        let (known, used) = self.known.get_mut(sql)?;
        *used = self.clock;
        Some(known.clone())
    }

    pub(super) fn put(&mut self, sql: &str, known: T) {
        if self.capacity == 0 {
            return;
        }
        if self.known.len() >= self.capacity && !self.known.contains_key(sql) {
            let oldest = self.known.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(sql, _)| sql.clone()) {
                self.known.remove(&oldest);
            }
        }
        self.clock += 1;
        self.known.insert(sql.into(), (known, self.clock));
    }

    pub(super) fn forget(&mut self, sql: &str) {
        self.known.remove(sql);
    }
}
