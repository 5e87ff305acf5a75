//! Passwords from a provider, asked for each connection.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_db::backend::{Credentials, ErrorExt};
use resonant_db::{Database, ErrorKind, PoolConfig, params};
use resonant_testkit::PostgresCluster;

#[tokio::test]
async fn a_password_is_changed_under_load_and_no_call_fails() {
    let cluster = PostgresCluster::builder().login("app", "one").start().await.expect("a server");
    let node = cluster.primary();
    let url = node.url_as("app").expect("a login").replace(":one@", "@");
    let vault = Arc::new(Mutex::new("one".to_owned()));
    let asked = Arc::new(AtomicU32::new(0));
    let provide = {
        let (vault, asked) = (Arc::clone(&vault), Arc::clone(&asked));
        move || {
            asked.fetch_add(1, Ordering::Relaxed);
            let password = vault.lock().expect("no panic").clone();
            async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                Ok::<_, std::io::Error>(Credentials::password(password))
            }
        }
    };
    // Connections that live so shortly are opened all the time.
    let pool =
        PoolConfig::default().min_size(4).max_size(8).max_lifetime(Duration::from_millis(400));
    let db = Database::builder()
        .primary(url)
        .credentials(provide)
        .pool(pool)
        .connect()
        .await
        .expect("connect");
    let over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (db, over) = (db.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut done = 0_u32;
                while !over.load(Ordering::Relaxed) {
                    db.write().query("SELECT 1", params![]).await.expect("no call fails");
                    done += 1;
                }
                done
            })
        })
        .collect();
    for password in ["two", "three", "four"] {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = asked.load(Ordering::Relaxed);
        // The server knows it first, then the vault: in between new connections are refused.
        node.sql(&format!("ALTER ROLE app PASSWORD '{password}'")).await.expect("alter");
        tokio::time::sleep(Duration::from_millis(20)).await;
        *vault.lock().expect("no panic") = password.to_owned();
        super::until("new ones were opened", async || asked.load(Ordering::Relaxed) > before + 4)
            .await;
    }
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        assert!(task.await.expect("no call failed") > 0);
    }
}

#[tokio::test]
async fn what_was_refused_is_asked_for_once_more_and_shown_nowhere() {
    let cluster =
        PostgresCluster::builder().login("app", "s3cret").start().await.expect("a server");
    let url = cluster.primary().url();
    let asked = Arc::new(AtomicU32::new(0));
    let builder = |passwords: [&'static str; 2]| {
        let asked = Arc::clone(&asked);
        Database::builder()
            .primary(url.clone())
            .pool(PoolConfig::default().min_size(1))
            .credentials(move || {
                let turn = asked.fetch_add(1, Ordering::Relaxed) as usize;
                async move {
                    let password = passwords[turn % 2];
                    Ok::<_, std::io::Error>(Credentials::password(password).user("app"))
                }
            })
    };
    let db = builder(["0ld", "s3cret"]).connect().await.expect("the second time");
    let user: String =
        db.write().query_one_as("SELECT current_user::text", params![]).await.expect("a row");
    assert_eq!(user, "app");
    let error = builder(["wr0ng", "wr0ng"]).connect().await.expect_err("refused");
    assert_eq!((error.kind(), error.sqlstate()), (ErrorKind::Config, Some("28P01")), "{error}");
    let shown = format!("{error} {error:?} {:?} {db:?}", builder(["wr0ng", "s3cret"]));
    assert!(!shown.contains("wr0ng") && !shown.contains("s3cret"), "{shown}");
    let failing = Database::builder()
        .primary(url)
        .pool(PoolConfig::default().acquire_timeout(Duration::from_secs(2)))
        .credentials(|| async {
            Err::<Credentials, _>(std::io::Error::other("the vault is sealed"))
        });
    let error = failing.connect().await.expect_err("no credentials");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("credentials"), "{error}");
}
