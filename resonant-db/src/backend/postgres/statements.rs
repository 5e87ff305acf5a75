//! The statements a connection keeps prepared, the least recently used going first.

use std::collections::HashMap;

use tokio_postgres::Statement;

/// A statement as the connection knows it.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) statement: Statement,
    /// It may leave something behind in the session.
    pub(super) suspicious: bool,
}

pub(super) struct Statements {
    known: HashMap<Box<str>, (Known, u64)>,
    capacity: usize,
    clock: u64,
}

impl Statements {
    pub(super) fn new(capacity: usize) -> Self {
        Self { known: HashMap::new(), capacity, clock: 0 }
    }

    pub(super) fn get(&mut self, sql: &str) -> Option<Known> {
        self.clock += 1;
        let (known, used) = self.known.get_mut(sql)?;
        *used = self.clock;
        Some(known.clone())
    }

    /// Keeps a statement. Whoever is dropped for it is closed on the server by the driver.
    pub(super) fn put(&mut self, sql: &str, known: Known) {
        if self.capacity == 0 {
            return;
        }
        if self.known.len() >= self.capacity {
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
