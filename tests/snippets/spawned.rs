//! Inside spawned tasks, with captured state.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use resonant_db::params;
use resonant_queue::{Delivery, HandlerError};
use tokio::sync::mpsc;

use super::service::{Service, Task, User};

#[tokio::test]
async fn every_primitive_works_in_a_spawned_task() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path()).await;

    let renamed = tokio::spawn({
        let service = service.clone();
        async move {
            let name = String::from("Grace");
            let attempts = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&attempts);
            let affected = service
                .db
                .transaction(async |tx| {
                    counted.fetch_add(1, Ordering::Relaxed);
                    tx.execute("UPDATE users SET name = $1 WHERE id = $2", params![name, 7]).await
                })
                .await
                .unwrap();
            (affected, attempts.load(Ordering::Relaxed))
        }
    });
    assert_eq!(renamed.await.unwrap(), (1, 1));

    let loaded = tokio::spawn({
        let service = service.clone();
        async move {
            let db = service.db.clone();
            let load = async move || {
                db.read().query_one_as("SELECT id, name FROM users WHERE id = 7", params![]).await
            };
            service.users.get_or_load("7", load).await.map(|user| User::clone(&user)).unwrap()
        }
    });
    assert_eq!(loaded.await.unwrap(), User { id: 7, name: "Grace".into() });

    let batched = tokio::spawn({
        let service = service.clone();
        async move {
            service
                .batch
                .submit_many([7, 8])
                .await
                .into_iter()
                .map(Result::unwrap)
                .collect::<Vec<_>>()
        }
    });
    assert_eq!(batched.await.unwrap(), [Some(User { id: 7, name: "Grace".into() }), None]);

    let agents = tokio::spawn({
        let shards = service.shards.clone();
        let (org, name) = ("org_123".to_owned(), "Ada".to_owned());
        async move {
            let sql = "INSERT INTO agents (org_id, name) VALUES ($1, $2)";
            shards.execute(sql, params![org, name]).await.unwrap();
            let sql = "SELECT * FROM agents WHERE org_id = $1";
            shards.query(sql, params![org]).await.unwrap().len()
        }
    });
    assert_eq!(agents.await.unwrap(), 1);

    let report = tokio::spawn({
        let health = service.health.clone();
        async move { health.run_all().await }
    });
    assert!(report.await.unwrap().is_up());
}

#[tokio::test]
async fn a_worker_captures_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path()).await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let worker = service
        .queue
        .worker({
            let db = service.db.clone();
            async move |delivery: Delivery<Task>| {
                let goal = delivery.message().goal.clone();
                if goal == "never" {
                    return Err(HandlerError::reject("this one never works"));
                }
                let names: Vec<String> =
                    db.read().query_as("SELECT name FROM users", params![]).await?;
                sender.send((goal, names)).map_err(HandlerError::retry)?;
                Ok(())
            }
        })
        .concurrency(4)
        .start()
        .await
        .unwrap();
    let publishing = tokio::spawn({
        let queue = service.queue.clone();
        async move {
            for goal in ["never", "Process data"] {
                queue
                    .publish(&Task { agent_id: "agent_123".into(), goal: goal.into() })
                    .await
                    .unwrap();
            }
        }
    });
    publishing.await.unwrap();
    assert_eq!(seen.recv().await.unwrap(), ("Process data".into(), vec!["Ada".to_string()]));
    let report = worker.drain().await.unwrap();
    assert_eq!(report.done, 1, "{report:?}");
    assert_eq!(service.queue.depth().await.unwrap().dead, 1);
}
