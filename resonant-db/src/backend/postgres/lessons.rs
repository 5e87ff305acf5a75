//! What the connections to a node have learned about statements, so that each statement's types are asked for once and not
//! once a connection.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::Statement;
use tokio_postgres::types::Type;

use super::statements::Recent;

/// What one connection found out about a statement.
#[derive(Debug)]
pub(super) struct Lesson {
    pub(super) params: Vec<Type>,
    /// The names of its columns.
    pub(super) columns: Vec<String>,
    /// The types of its columns that the driver does not know by itself.
    foreign: Vec<u32>,
}

impl Lesson {
    pub(super) fn of(statement: &Statement) -> Self {
        let columns = statement.columns();
        let foreign = columns.iter().map(|column| column.type_().oid());
        Self {
            params: statement.params().to_vec(),
            columns: columns.iter().map(|column| column.name().to_owned()).collect(),
            foreign: foreign.filter(|oid| Type::from_oid(*oid).is_none()).collect(),
        }
    }

    /// Whether a connection that has met these types can run the statement at once. If it has not, the driver would ask
    /// for the type while the rows are already coming, and hang if there are many.
    pub(super) fn is_enough(&self, met: &HashSet<u32>) -> bool {
        self.foreign.iter().all(|oid| met.contains(oid))
    }

    /// Whether it is still true of the statement.
    pub(super) fn still_holds(&self, statement: &Statement) -> bool {
        self.params == statement.params()
    }
}

pub(super) struct Lessons(Mutex<Recent<Arc<Lesson>>>);

impl Lessons {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Mutex::new(Recent::new(capacity)))
    }

    pub(super) fn recall(&self, sql: &str) -> Option<Arc<Lesson>> {
        self.lock().get(sql)
    }

    /// Notes what a statement is; answers it.
    pub(super) fn learn(
        &self,
        sql: &str,
        statement: &Statement,
        met: &mut HashSet<u32>,
    ) -> Arc<Lesson> {
        let lesson = Arc::new(Lesson::of(statement));
        met.extend(&lesson.foreign);
        self.lock().put(sql, Arc::clone(&lesson));
        lesson
    }

    pub(super) fn forget(&self, sql: &str) {
        self.lock().forget(sql);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recent<Arc<Lesson>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
