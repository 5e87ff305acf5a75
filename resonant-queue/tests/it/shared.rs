//! Several handles on one file behave as several processes do: each has its own connections and its own memory.

use std::sync::Arc;
use std::time::Duration;

use resonant_queue::{Delivery, ErrorKind, HandlerError, PartitionedQueue, SequenceCheck, Sqlite};

async fn queue(path: &std::path::Path) -> PartitionedQueue<u64> {
    let file = Sqlite::open(path).await.unwrap();
    let builder =
        PartitionedQueue::builder("shared").partitions(4).lease_ttl(Duration::from_millis(500));
    builder.key(|number: &u64| number % 5).backend(file).build().await.unwrap()
}

/// Publishers of two handles take turns with pauses between them: places stay unique, counters right, order kept.
#[tokio::test]
async fn handles_that_take_turns_see_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    let queues = [queue(&path).await, queue(&path).await];
    for number in 0..40 {
        queues[(number % 2) as usize].publish(&number).await.unwrap();
        if number % 8 == 0 {
            // Long enough that an idle writer looks around.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    for queue in &queues {
        assert_eq!(queue.depth().await.unwrap().ready, 40);
    }
    let check = SequenceCheck::new("shared");
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut workers = Vec::new();
    for queue in &queues {
        let (check, seen) = (check.clone(), Arc::clone(&seen));
        let handler = async move |delivery: Delivery<u64>| {
            check.observe(&delivery);
            seen.lock().unwrap().push(*delivery.message());
            Ok::<(), HandlerError>(())
        };
        workers.push(queue.worker(handler).start().await.unwrap());
    }
    let done = async {
        for number in 40..80 {
            queues[(number % 2) as usize].publish(&number).await.unwrap();
        }
        while queues[0].depth().await.unwrap().unfinished() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), done).await.unwrap();
    for worker in workers {
        worker.drain().await.unwrap();
    }
    assert!(check.report().in_order(), "{:?}", check.report());
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (0..80).collect::<Vec<_>>());
}

/// A file taken alone is refused to others until it is let go; a file of somebody else is left as it is.
#[tokio::test]
async fn a_file_is_taken_alone_and_never_a_foreign_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    let alone = Sqlite::builder(&path).exclusive(true).open().await.unwrap();
    let refused = Sqlite::open(&path).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    drop(alone);
    Sqlite::open(&path).await.unwrap();

    let foreign = directory.path().join("notes.txt");
    let text = "no database ".repeat(200);
    std::fs::write(&foreign, &text).unwrap();
    assert_eq!(Sqlite::open(&foreign).await.unwrap_err().kind(), ErrorKind::Incompatible);
    assert_eq!(std::fs::read_to_string(&foreign).unwrap(), text);
}

/// A file taken alone is taken under all of its names.
#[cfg(unix)]
#[tokio::test]
async fn a_link_does_not_go_round_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let (path, link) = (directory.path().join("queue.db"), directory.path().join("link.db"));
    let alone = Sqlite::builder(&path).exclusive(true).open().await.unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let refused = Sqlite::builder(&link).exclusive(true).open().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    drop(alone);
    Sqlite::builder(&link).exclusive(true).open().await.unwrap();
}

/// Programs that start at the same moment all open the file that none of them finds.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_file_is_opened_by_many_at_once() {
    for round in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        let opened = futures::future::join_all((0..8).map(|_| {
            let path = path.clone();
            tokio::spawn(async move { Sqlite::open(path).await.map(drop) })
        }));
        for opened in opened.await {
            if let Err(error) = opened.unwrap() {
                panic!("round {round}: {error:?} {:?}", std::error::Error::source(&error));
            }
        }
    }
}

/// Errors name the file and what to do next.
#[tokio::test]
async fn errors_name_the_file_and_the_next_step() {
    let directory = tempfile::tempdir().unwrap();
    let (path, foreign) = (directory.path().join("queue.db"), directory.path().join("foreign.db"));
    std::fs::write(&foreign, "no database ".repeat(200)).unwrap();
    let alone = Sqlite::builder(&path).exclusive(true).open().await.unwrap();
    let nowhere = directory.path().join("nowhere").join("queue.db");
    for (path, step) in
        [(&path, "end that one"), (&foreign, "of its own"), (&nowhere, "must exist")]
    {
        let text = Sqlite::open(path).await.unwrap_err().to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains(step), "{text}");
    }
    drop(alone);

    // A file that loses its tables while it is open.
    let file = Sqlite::open(&path).await.unwrap();
    let queue: PartitionedQueue<u64> =
        PartitionedQueue::builder("named").backend(file).build().await.unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("DROP TABLE messages; DROP TABLE queues").unwrap();
    for error in [queue.publish(&1).await.unwrap_err(), queue.depth().await.unwrap_err()] {
        let text = error.to_string();
        assert!(text.contains("queue.db") && text.contains("the source says why"), "{text}");
    }
}
