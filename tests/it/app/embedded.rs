//! Everything a file can name, with nothing installed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use resonant_queue::{Delivery, SequenceCheck};
use resonant_sdk::app::{ErrorKind, Resonant};
use resonant_sdk::db::{params, row};
use tokio::time::{sleep, timeout};

use super::{TOKEN, Task, ask, file};

const LIMIT: Duration = Duration::from_secs(60);

fn everything(folder: &std::path::Path) -> String {
    let at = folder.display();
    format!(
        "[service]
         name = 'everything'
         [http]
         listen = '127.0.0.1:0'
         tokens = {{ ada = \"{TOKEN}\" }}
         [health]
         drain_delay = '10ms'
         [database]
         primary = 'sqlite:{at}/app.db'
         [sharded_database]
         shard_key = 'org_id'
         tables = {{ agents = 'text' }}
         [sharded_database.shards]
         shard_0 = 'sqlite:{at}/shard0.db'
         shard_1 = 'sqlite:{at}/shard1.db'
         [cache]
         [broker]
         urls = ['sqlite:{at}/tasks.db']
         [queues.session-tasks]
         partition_key = 'agent_id'
         [batches.finished]
         max_batch_size = 50"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_goes_through_all_parts_and_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let text = everything(folder.path());
    let app = Resonant::open(file(&text).read().unwrap()).await.unwrap();
    let db = app.database().unwrap().clone();
    db.write().batch("CREATE TABLE done (goal TEXT PRIMARY KEY)").await.unwrap();
    let shards = app.sharded_database().unwrap();
    shards.on_all("CREATE TABLE agents (org_id TEXT, name TEXT)").await.unwrap();
    let sql = "INSERT INTO agents (org_id, name) VALUES ($1, $2)";
    shards.execute(sql, params!["org_1", "Ada"]).await.unwrap();

    let tasks = app.queue::<Task>("session-tasks").await.unwrap();
    let finished = app
        .batch("finished", {
            let db = db.clone();
            async move |goals: Vec<String>| {
                let rows = goals.iter().map(|goal| row![goal]);
                let sql = "INSERT INTO done (goal) VALUES ($1) ON CONFLICT DO NOTHING";
                db.write().execute_many(sql, rows).await.map(drop)
            }
        })
        .unwrap();
    let check = Arc::new(SequenceCheck::new("session-tasks"));
    let workers = app
        .workers("session-tasks", {
            let (tasks, check) = (tasks.clone(), Arc::clone(&check));
            move || {
                let (finished, check) = (finished.clone(), Arc::clone(&check));
                let handler = async move |delivery: Delivery<Task>| {
                    check.observe(&delivery);
                    finished.submit(delivery.message().goal.clone()).await?;
                    Ok(())
                };
                tasks.worker(handler).start()
            }
        })
        .await
        .unwrap();
    assert_eq!(workers.running(), 1);
    let counts = app.cache::<u64>("count").unwrap();
    let counted = counts.get_or_load("all", async || Ok::<_, std::io::Error>(7)).await.unwrap();
    assert_eq!(*counted, 7);

    let routes = Router::new().route("/hello", get(async || "hello"));
    let address = app.serve(routes).await.unwrap().unwrap();
    tasks.publish_many((0..200).map(|n| Task::new(n % 10, n))).await.unwrap();
    let all_done = async {
        while tasks.depth().await.unwrap().unfinished() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, all_done).await.unwrap();
    assert!(check.report().in_order());

    assert_eq!(ask(address, "GET /hello").await.unwrap().0, 200);
    let (code, report) = ask(address, "GET /health").await.unwrap();
    assert_eq!(code, 200, "{report}");
    app.health().run_all().await;
    let names: Vec<_> = app.health().snapshot().checks().map(|it| it.name().to_owned()).collect();
    assert_eq!(
        names,
        [
            "database",
            "sharded_database",
            "sharded_database.shards",
            "cache",
            "queue.session-tasks",
            "batch.finished"
        ]
    );
    let page = format!("GET /api/v1/overview HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nX:");
    let (code, overview) = ask(address, &page).await.unwrap();
    assert_eq!(code, 200, "{overview}");
    for part in ["everything", "session-tasks", "finished", "app.db", "in this process"] {
        assert!(overview.contains(part), "{part} is not in {overview}");
    }
    assert!(!overview.contains(TOKEN));

    let report = app.shutdown(Duration::from_secs(20)).await;
    assert!(report.is_clean(), "{report}");
    let steps: Vec<_> = report.steps.iter().map(|step| step.name).collect();
    assert_eq!(
        steps,
        [
            "wait",
            "http",
            "scaling",
            "workers",
            "batches",
            "publishers",
            "failover",
            "cache",
            "pools"
        ]
    );
    assert!(ask(address, "GET /hello").await.is_err());
    assert!(db.ping().await.is_err());
    drop((app, tasks, workers, db));

    let again = Resonant::open(file(&text).read().unwrap()).await.unwrap();
    let sql = "SELECT count(*) FROM done";
    let done: i64 = again.database().unwrap().read().query_one_as(sql, params![]).await.unwrap();
    assert_eq!(done, 200);
    let shards = again.sharded_database().unwrap();
    let sql = "SELECT name FROM agents WHERE org_id = $1";
    let name: String = shards.query_one_as(sql, params!["org_1"]).await.unwrap();
    assert_eq!(name, "Ada");
    again.shutdown(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_away_degrades_a_service_and_only_all_of_them_take_it_out() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let open = async |first: &str| {
        let text = format!(
            "[sharded_database]
             shard_key = 'org_id'
             tables = {{ agents = 'text' }}
             [sharded_database.shards]
             shard_0 = 'sqlite:{at}/{first}'
             shard_1 = 'sqlite:{at}/away/shard1.db'"
        );
        let app = Resonant::open(file(&text).read().unwrap()).await.unwrap();
        let report = app.health().run_all().await;
        let up = |name: &str| report.get(name).unwrap().status().is_up();
        (up("sharded_database"), up("sharded_database.shards"), report.is_up())
    };
    assert_eq!(open("shard0.db").await, (true, false, true));
    assert_eq!(open("away/shard0.db").await, (false, false, false));
}

#[tokio::test]
async fn workers_that_do_not_start_can_be_started_again() {
    let text =
        "[queues.session-tasks]\npartition_key = 'agent_id'\n[scaling.of]\nqueue = 'session-tasks'";
    let app = Resonant::open(file(text).read().unwrap()).await.unwrap();
    let tasks = app.queue::<Task>("session-tasks").await.unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let start = {
        let (tasks, calls) = (tasks.clone(), Arc::clone(&calls));
        move || {
            let tasks = tasks.clone();
            let call = calls.fetch_add(1, Ordering::AcqRel);
            async move {
                if call == 1 {
                    // What a broker that is away would say.
                    let kind = resonant_queue::ErrorKind::Unavailable;
                    return Err(resonant_queue::Error::new(kind, "start", "away"));
                }
                tasks.worker(async move |_: Delivery<Task>| Ok(())).start().await
            }
        }
    };
    let refused = app.workers("session-tasks", start.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Part);
    assert_eq!(app.workers("session-tasks", start.clone()).await.unwrap().running(), 2);
    assert_eq!(app.workers("session-tasks", start).await.unwrap_err().kind(), ErrorKind::Missing);
    assert!(app.shutdown(Duration::from_secs(20)).await.is_clean());
}

#[tokio::test]
async fn what_the_file_does_not_name_is_not_there_and_says_so() {
    let text = "[queues.session-tasks]\npartition_key = 'agent_id'";
    let app = Resonant::open(file(text).read().unwrap()).await.unwrap();
    let missing = app.database().unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Missing);
    assert!(missing.message().contains("resonant.toml has no [database]"), "{missing}");
    assert!(app.cache::<u64>("x").is_err() && app.sharded_database().is_err());
    assert!(app.failover().is_err() && app.batch_config("x").is_err());
    assert!(app.queue::<Task>("other").await.is_err());
    let first = app.queue::<Task>("session-tasks").await.unwrap();
    let second = app.queue::<Task>("session-tasks").await.unwrap();
    first.publish(&Task::new(1, 1)).await.unwrap();
    assert_eq!(second.depth().await.unwrap().unfinished(), 1);
    let other = app.queue::<u64>("session-tasks").await.unwrap_err();
    assert!(other.message().contains("another type"), "{other}");
    let routes = Router::new().route("/hello", get(async || "hello"));
    assert!(app.serve(routes).await.unwrap_err().message().contains("no [http]"));
    assert_eq!(app.serve(Router::new()).await.unwrap(), None);
    assert!(app.shutdown(Duration::from_secs(5)).await.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_come_and_go_with_the_queue_as_the_file_says() {
    let text = "
        [queues.session-tasks]
        partition_key = 'agent_id'
        [scaling.session-workers]
        queue = 'session-tasks'
        autoscaler = { interval = '20ms' }
        [scaling.session-workers.policy.hpa]
        min_replicas = 2
        max_replicas = 6
        metrics = [{ name = 'queue_depth', kind = 'external', target = { average_value = 10 } }]";
    let app = Resonant::open(file(text).read().unwrap()).await.unwrap();
    let tasks = app.queue::<Task>("session-tasks").await.unwrap();
    let (release, held) = tokio::sync::watch::channel(false);
    let workers = app
        .workers("session-tasks", {
            let tasks = tasks.clone();
            move || {
                let held = held.clone();
                let handler = async move |_: Delivery<Task>| {
                    let _ = held.clone().wait_for(|released| *released).await;
                    Ok(())
                };
                tasks.worker(handler).concurrency(1).start()
            }
        })
        .await
        .unwrap();
    assert_eq!(workers.running(), 2);
    app.start().await.unwrap();
    tasks.publish_many((0..100).map(|n| Task::new(n, n))).await.unwrap();
    let grown = async {
        while workers.running() < 6 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, grown).await.unwrap();
    release.send_replace(true);
    let report = app.shutdown(Duration::from_secs(20)).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(workers.running(), 0);
}
