//! What is said once, when a node is first connected to.

use std::fmt;
use std::sync::{Arc, Mutex};

use resonant_db::{Database, PoolConfig, params};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::database;
use crate::database::redaction::keep_attention;

/// The warnings of this thread.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!("{field}={value:?} "));
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().expect("no test panics while holding it").push(text.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn pools_that_want_more_than_the_server_allows_are_said_once_with_the_sum() {
    let database = database().await;
    let allowed: u32 = database
        .value("SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int")
        .await
        .expect("a setting")
        .parse()
        .expect("a number");
    for (instances, fits) in [(1, true), (allowed, false)] {
        keep_attention();
        let warnings = Warnings::default();
        let _listening = tracing::subscriber::set_default(warnings.clone());
        let db = Database::builder()
            .primary(database.url())
            .pool(PoolConfig::default().min_size(2).max_size(3))
            .instances(instances)
            .connect()
            .await
            .expect("connect");
        for _ in 0..10 {
            db.read().query("SELECT 1", params![]).await.expect("a read");
        }
        let said = warnings.0.lock().expect("no test panics while holding it").clone();
        // Three, four that reads may share, and one for questions.
        let sum = format!("is {};", 8 * instances);
        let lines = said.iter().filter(|line| line.contains("allows")).count();
        assert_eq!(lines, usize::from(!fits), "{said:?}");
        assert!(fits || said.iter().any(|line| line.contains(&sum)), "{said:?}");
    }
    // The limit of a role or a database counts too.
    database
        .sql(&format!("ALTER DATABASE \"{}\" CONNECTION LIMIT 3", database.name()))
        .await
        .expect("limited");
    keep_attention();
    let warnings = Warnings::default();
    let _listening = tracing::subscriber::set_default(warnings.clone());
    let pool = PoolConfig::default().min_size(1).max_size(3);
    let db =
        Database::builder().primary(database.url()).pool(pool).connect().await.expect("connect");
    let said = warnings.0.lock().expect("no test panics while holding it").clone();
    assert!(said.iter().any(|line| line.contains("allows 3.")), "{said:?}");
    drop(db);
}
