//! Secrets come out nowhere: not in `Debug`, not in errors and their sources, not in logs.

use std::cell::RefCell;
use std::error::Error as _;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Once};
use std::time::Duration;

use resonant_db::{Database, Error, ErrorKind, PoolConfig, Result, params, row};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::basics::file;
use super::double::{Cluster, Fails};

thread_local! {
    static LOGGED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps what is logged at any level on threads that listen, spans and their fields included.
///
/// One for the process: whether a place in the code logs at all is cached, and a subscriber of one thread could meet the
/// answer that was cached for another.
struct Log;

impl Log {
    fn listen() {
        keep_attention();
        LOGGED.set(Some(String::new()));
    }

    fn heard() -> String {
        LOGGED.take().unwrap_or_default()
    }

    fn write(name: &str, record: impl FnOnce(&mut dyn Visit)) {
        LOGGED.with_borrow_mut(|logged| {
            if let Some(text) = logged {
                let _ = writeln!(text, "{name}");
                record(&mut Fields(text));
            }
        });
    }
}

/// Makes no place in the code unwanted for good: whoever listens on one thread calls it first.
pub(crate) fn keep_attention() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Log).expect("the only one"));
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = writeln!(self.0, "  {}={value:?}", field.name());
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("resonant")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        Self::write(span.metadata().name(), |fields| span.record(fields));
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        Self::write("record", |fields| values.record(fields));
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        Self::write(event.metadata().name(), |fields| event.record(fields));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// All that an error says, in every way, causes included.
fn all_of(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, " {error} {error:?}");
        cause = error.source();
    }
    text
}

fn assert_hidden(secret: &str, shown: &[String]) {
    for text in shown {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn passwords_come_out_nowhere() -> Result<()> {
    const PASSWORD: &str = "pa55word";
    Log::listen();
    let cluster = Cluster::default();
    let url = |node: &str| format!("double://app:{PASSWORD}@{node}?sslpassword={PASSWORD}");
    let builder = Database::builder()
        .primary(url("primary"))
        .replicas([url("a")])
        .pool(PoolConfig::default().min_size(1).max_size(1))
        .backend(Arc::new(cluster.clone()));
    let mut shown = vec![format!("{builder:?} {:?}", builder.config())];

    cluster.fail("primary", (Fails::Connecting, ErrorKind::Unavailable));
    let error = builder.clone().connect().await.expect_err("down");
    assert!(error.to_string().contains("primary"), "{error}");
    shown.push(all_of(&error));

    let db = builder.connect_lazy()?;
    shown.push(all_of(&db.write().execute("write", params![]).await.expect_err("down")));
    cluster.fail("primary", (Fails::Running, ErrorKind::Unavailable));
    cluster.fail("a", (Fails::Running, ErrorKind::Unavailable));
    for _ in 0..10 {
        shown.push(all_of(&db.read().query("read", params![]).await.expect_err("down")));
    }
    let session = db.session();
    shown.push(format!("{db:?} {:?} {:?} {:?}", db.status(), db.findings(), db.config()));
    shown.push(format!("{session:?} {:?} {:?}", db.read(), session.write()));

    cluster.fail("a", None);
    cluster.hang("a", "slow");
    let late = tokio::spawn({
        let db = db.clone();
        async move { db.read().query("slow", params![]).await }
    });
    cluster.reached("a:slow").await;
    shown.push(all_of(&db.close(Duration::from_secs(1)).await.expect_err("one is late")));
    late.abort();

    for wrong in [
        "mysql://app:pa55word@db/app",
        "app:pa55word@db/app",
        "//app:pa55word@db",
        " double://app:pa55word@db",
    ] {
        let error = Database::builder().primary(wrong).connect_lazy().expect_err("no engine");
        shown.push(all_of(&error));
    }
    let logged = Log::heard();
    assert!(logged.contains("keeps failing"), "{logged}");
    shown.push(logged);
    assert_hidden(PASSWORD, &shown);
    Ok(())
}

#[tokio::test]
async fn values_come_out_nowhere() -> Result<()> {
    const VALUE: &str = "4111-1111";
    Log::listen();
    let (_folder, db) = file().await;
    db.write()
        .batch(
            "CREATE TABLE card (id INTEGER PRIMARY KEY, number TEXT UNIQUE CHECK (length(number) < 12), note ANY NOT NULL) STRICT; \
             CREATE TABLE shop (card TEXT REFERENCES card (number))",
        )
        .await?;
    let insert = "INSERT INTO card (id, number, note) VALUES ($1, $2, $3)";
    db.write().execute(insert, params![1, VALUE, VALUE]).await?;
    let long = VALUE.repeat(2);
    let mut shown = Vec::new();
    for (kind, sql, values) in [
        (ErrorKind::Constraint, insert, params![2, VALUE, VALUE].to_vec()),
        (ErrorKind::Constraint, insert, params![2, long, VALUE].to_vec()),
        (ErrorKind::Rejected, insert, params![VALUE, "x", VALUE].to_vec()),
        (ErrorKind::Constraint, insert, params![2, "x", None::<&str>].to_vec()),
        (
            ErrorKind::Constraint,
            "INSERT INTO shop VALUES ($1)",
            params![format!("{VALUE}!")].to_vec(),
        ),
        (ErrorKind::Rejected, "SELECT json_extract('{}', $1)", params![VALUE].to_vec()),
        (ErrorKind::Rejected, "SELECT json_extract('{}', number) FROM card", vec![]),
        (ErrorKind::Rejected, "SELECT json($1)", params![VALUE].to_vec()),
        (ErrorKind::Rejected, "SELECT $2", params![VALUE].to_vec()),
        (ErrorKind::Rejected, "SELECT $1", params![VALUE, VALUE].to_vec()),
        (ErrorKind::Rejected, "SELEC $1", params![VALUE].to_vec()),
    ] {
        let error = db.write().execute(sql, &values).await.expect_err(sql);
        assert_eq!(error.kind(), kind, "{sql}: {error}");
        shown.push(all_of(&error));
        shown.push(format!("{values:?}"));
    }
    let error =
        db.write().execute_many(insert, [row![5, VALUE, VALUE], row![6, VALUE, VALUE]]).await;
    shown.push(all_of(&error.expect_err("twice the same")));
    // What a row holds is a value like any other.
    let rows = db.read().query("SELECT number FROM card", params![]).await?;
    shown.push(all_of(&rows.decode::<i64>().expect_err("no number")));
    shown.push(format!("{rows:?} {:?}", rows.first()));
    // A transaction that fails, and one that is refused after that.
    let error = db
        .transaction(async |tx| {
            let _ = tx.execute(insert, params![7, VALUE, VALUE]).await;
            tx.execute(insert, params![8, VALUE, VALUE]).await
        })
        .await;
    shown.push(all_of(&error.expect_err("it has failed")));
    let logged = Log::heard();
    assert!(logged.contains("db.write"), "{logged}");
    shown.push(logged);
    assert_hidden(VALUE, &shown);
    Ok(())
}
