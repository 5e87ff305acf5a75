//! Database: reads on replicas, writes on the primary, read-your-writes, transactions that are retried.
//!
//! `cargo run --example database`

use std::error::Error;

use resonant_db::backend::{ErrorExt, sqlite};
use resonant_db::{Database, ReadStrategy, params, row};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Account {
    id: i64,
    owner: String,
    balance: i64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let url = sqlite::url(folder.path().join("bank.db"));
    // On SQLite a replica is a set of read-only connections to the same file.
    let db = Database::builder()
        .primary(&url)
        .replicas([&url])
        .read_strategy(ReadStrategy::RoundRobin)
        .connect()
        .await?;
    db.write()
        .batch("CREATE TABLE accounts (id BIGINT PRIMARY KEY, owner TEXT NOT NULL, balance BIGINT NOT NULL CHECK (balance >= 0))")
        .await?;

    // Many rows: one statement, one transaction, all or none.
    let accounts = [row![1, "Ada", 100], row![2, "Grace", 50]];
    let insert = "INSERT INTO accounts (id, owner, balance) VALUES ($1, $2, $3)";
    assert_eq!(db.write().execute_many(insert, accounts).await?, 2);

    // A session reads what it wrote, whichever replica answers; its token goes into a cookie.
    let session = db.session();
    session
        .write()
        .execute("UPDATE accounts SET balance = balance + $1 WHERE id = $2", params![10, 1])
        .await?;
    let ada: Account = session
        .read()
        .query_one_as("SELECT id, owner, balance FROM accounts WHERE id = $1", params![1])
        .await?;
    assert_eq!(ada.balance, 110);
    let token = session.token().unwrap_or_default();
    let elsewhere = db.session_from(&token)?;
    let balance: i64 = elsewhere
        .read()
        .query_one_as("SELECT balance FROM accounts WHERE id = $1", params![1])
        .await?;
    assert_eq!(balance, 110);

    // Both or none; run again when the engine reports a conflict.
    let (from, to, amount) = (1, 2, 30);
    db.transaction(async move |tx| {
        tx.execute(
            "UPDATE accounts SET balance = balance - $1 WHERE id = $2",
            params![amount, from],
        )
        .await?;
        tx.execute("UPDATE accounts SET balance = balance + $1 WHERE id = $2", params![amount, to])
            .await?;
        Ok(())
    })
    .await?;

    // Errors say what happened without reading their text.
    let twice = db.write().execute(insert, params![1, "Eve", 0]).await.err();
    assert!(twice.is_some_and(|error| error.is_unique_violation()));

    let all: Vec<Account> = db
        .read()
        .query_as("SELECT id, owner, balance FROM accounts ORDER BY id", params![])
        .await?;
    for account in &all {
        println!("{}: {} has {}", account.id, account.owner, account.balance);
    }
    db.close(std::time::Duration::from_secs(5)).await?;
    Ok(())
}
