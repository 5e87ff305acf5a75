//! Nothing confirmed is lost: brokers restarted in the middle of publishing, workers stopped in order under load.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::support::{LIMIT, Seen, queue, rabbit, until, work};
use super::{broker, node};

/// Publishes `count` numbers one by one from many tasks, none twice, while the broker is killed or stopped and started again
/// `times` times. Every `Ok` is handled afterwards, once; what else is handled was an error that may have applied.
async fn restarted(count: u64, times: u64) {
    let (server, node) = node().await;
    let vhost = server.vhost().await.unwrap();
    let queue = queue(rabbit(&vhost, Duration::from_secs(10)).await, 4).await;
    let next = Arc::new(Mutex::new(0));
    let publishers: Vec<_> = (0..32)
        .map(|_| {
            let (queue, next) = (queue.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                let (mut stored, mut unknown, mut refused) = (Vec::new(), Vec::new(), 0_u64);
                loop {
                    let number = {
                        let mut next = next.lock().await;
                        *next += 1;
                        *next - 1
                    };
                    if number >= count {
                        return (stored, unknown, refused);
                    }
                    match queue.publish(&number).await {
                        Ok(_) => stored.push(number),
                        Err(error) if error.may_have_applied() => unknown.push(number),
                        Err(error) => {
                            assert!(error.is_transient(), "{error:?}");
                            refused += 1;
                            // Else a broker that is down for seconds would use all numbers up.
                            sleep(Duration::from_millis(100)).await;
                        }
                    }
                }
            })
        })
        .collect();
    for turn in 0..times {
        let at = count * (turn + 1) / (times + 1);
        until("the middle", async || *next.lock().await >= at).await;
        // Killed, stopped in order, and so on.
        if turn % 2 == 0 {
            node.kill().await.unwrap()
        } else {
            node.stop().await.unwrap()
        }
        node.start().await.unwrap();
    }
    let (mut stored, mut unknown, mut refused) = (BTreeSet::new(), BTreeSet::new(), 0);
    for publisher in publishers {
        let (ok, maybe, no) = publisher.await.unwrap();
        stored.extend(ok);
        unknown.extend(maybe);
        refused += no;
    }
    assert!(!publishers_never_failed(&unknown, refused), "the broker was away in the middle");
    let seen = Seen::default();
    let (worker, _) = work(&queue, &seen).await;
    let empty = async || queue.depth().await.is_ok_and(|depth| depth.unfinished() == 0);
    until("all is handled", empty).await;
    worker.drain().await.unwrap();
    let handled: BTreeSet<_> = seen.all().into_iter().collect();
    assert_eq!(handled.len(), seen.all().len(), "none was handled twice");
    assert_eq!(stored.difference(&handled).count(), 0, "every Ok is there");
    let extra: Vec<_> = handled.difference(&stored).collect();
    assert!(extra.iter().all(|number| unknown.contains(number)), "only what may have applied");
    println!(
        "FIGURE of {count} publishes through {times} restarts {} were confirmed and all of them handled, {} in doubt ({} of them there), {refused} refused",
        stored.len(),
        unknown.len(),
        extra.len()
    );
}

fn publishers_never_failed(unknown: &BTreeSet<u64>, refused: u64) -> bool {
    unknown.is_empty() && refused == 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_confirmed_publish_survives_a_restart() {
    restarted(6000, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/soak rabbitmq"]
async fn every_confirmed_publish_of_100_000_survives_restarts() {
    restarted(100_000, 2).await;
}

/// Workers are drained and replaced under load: nothing is handed out twice, nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_stop_under_load_delivers_nothing_twice() {
    let vhost = broker().await.vhost().await.unwrap();
    let queue = queue(rabbit(&vhost, LIMIT).await, 4).await;
    let seen = Seen::default();
    let load = tokio::spawn({
        let queue = queue.clone();
        async move {
            for hundred in 0..30_u64 {
                queue.publish_many(hundred * 100..(hundred + 1) * 100).await.unwrap();
            }
        }
    });
    for turn in 1..=4 {
        let (worker, check) = work(&queue, &seen).await;
        until("some are handled", async || seen.count() >= turn * 500).await;
        let report = timeout(LIMIT, worker.drain()).await.unwrap().unwrap();
        assert_eq!((report.abandoned, report.fenced), (0, 0), "{report:?}");
        assert!(check.report().in_order(), "{:?}", check.report());
    }
    load.await.unwrap();
    let (worker, _) = work(&queue, &seen).await;
    until("the rest is handled", async || seen.count() == 3000).await;
    worker.drain().await.unwrap();
    assert_eq!(seen.all().len(), 3000, "none was handed out twice");
    seen.assert_in_order();
}
