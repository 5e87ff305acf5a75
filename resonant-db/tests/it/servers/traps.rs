//! What the driver does that the backend is built around: if one of these goes red after an update, the part of the
//! backend that answers it can go, or must change.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_db::Param;
use resonant_testkit::postgres::TempDatabase;
use tokio_postgres::{Client, NoTls};

use super::{database, until};

/// The driver as it comes, with its task.
async fn raw(database: &TempDatabase) -> Client {
    let (client, connection) =
        tokio_postgres::connect(&database.url(), NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

async fn value(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.expect(sql).get(0)
}

#[tokio::test]
async fn a_commit_that_rolled_back_is_a_success() {
    let database = database().await;
    let client = raw(&database).await;
    client.batch_execute("CREATE TABLE t (n int)").await.expect("create");
    client.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.expect("begin");
    client.batch_execute("SELECT 1 / 0").await.expect_err("the transaction fails");
    client.batch_execute("COMMIT").await.expect("answered by ROLLBACK, and called fine");
    assert_eq!(database.value("SELECT count(*) FROM t").await.expect("count"), "0");
}

#[tokio::test]
async fn a_dropped_statement_runs_on_and_the_next_waits_behind_it() {
    let database = database().await;
    let client = Arc::new(raw(&database).await);
    let dropped = client.query("SELECT pg_sleep(1)", &[]);
    tokio::time::timeout(Duration::from_millis(200), dropped).await.expect_err("it sleeps");
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(1)' \
                   AND pid <> pg_backend_pid()";
    assert_eq!(database.value(running).await.expect("count"), "1", "nobody stopped it");
    assert_eq!(value(&client, "SELECT 'late'").await, "late");
    assert_eq!(
        database.value(running).await.expect("count"),
        "0",
        "the answer came only behind it"
    );
}

#[tokio::test]
async fn a_dropped_begin_leaves_the_session_in_a_transaction() {
    let database = database().await;
    let client = raw(&database).await;
    {
        let mut begin = std::pin::pin!(client.batch_execute("BEGIN"));
        // Sent with the first poll, dropped before the answer.
        assert!(futures::poll!(&mut begin).is_pending());
    }
    client.batch_execute("CREATE TABLE t (n int)").await.expect("create");
    let seen = "SELECT count(*) FROM pg_class WHERE relname = 't'";
    assert_eq!(database.value(seen).await.expect("count"), "0", "nothing is committed");
    assert!(!client.is_closed(), "and the client looks as good as new");
}

#[tokio::test]
async fn a_plain_integer_does_not_fit_a_bigint_nor_text_a_uuid() {
    let database = database().await;
    let client = raw(&database).await;
    let refused = client.query("SELECT $1::bigint", &[&7_i32]).await.expect_err("int4 for int8");
    assert!(refused.code().is_none(), "the driver itself: {refused}");
    let id = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    client.query("SELECT $1::uuid", &[&id]).await.expect_err("text for uuid");
    client.query("SELECT $1::jsonb", &[&"{}"]).await.expect_err("text for jsonb");
}

#[tokio::test]
async fn a_discarded_statement_breaks_the_drivers_own_look_ups() {
    let database = database().await;
    let client = raw(&database).await;
    client
        .batch_execute("CREATE TYPE mood AS ENUM ('fine'); CREATE TYPE other AS ENUM ('x')")
        .await
        .expect("types");
    client.query("SELECT 'fine'::mood", &[]).await.expect("looked up");
    client.batch_execute("DEALLOCATE ALL").await.expect("deallocate");
    let broken =
        client.query("SELECT 'x'::other", &[]).await.expect_err("its own statement is gone");
    assert_eq!(broken.code().map(|code| code.code()), Some("26000"));
}

/// Records what the driver logs. There is one logger a process.
struct Record(Mutex<Vec<String>>);

impl log::Log for Record {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("tokio_postgres")
    }
    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().expect("a lock").push(record.args().to_string());
        }
    }
    fn flush(&self) {}
}

#[tokio::test]
async fn the_driver_logs_parameters_and_ours_show_no_value() {
    static RECORD: Record = Record(Mutex::new(Vec::new()));
    let database = database().await;
    let client = raw(&database).await;
    log::set_logger(&RECORD).expect("the only logger");
    log::set_max_level(log::LevelFilter::Debug);
    client.query("SELECT $1::text", &[&"raw-s3cr3t"]).await.expect("select");
    let logged = || RECORD.0.lock().expect("a lock").join("\n");
    assert!(logged().contains("raw-s3cr3t"), "the driver shows what it is given");

    let mut connection = super::connect(&database.url()).await;
    let sql = "SELECT $1::text, $2::bytea";
    let params = [Param::Text("our-s3cr3t"), Param::Bytes(b"our-s3cr3t")];
    connection.query(sql, &params).await.expect("select");
    connection.execute(sql, &params).await.expect("select");
    until("the log", async || logged().contains("text(10 bytes)")).await;
    assert!(!logged().contains("our-s3cr3t"), "{}", logged());
    log::set_max_level(log::LevelFilter::Off);
}
