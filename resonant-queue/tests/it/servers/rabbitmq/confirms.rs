//! Whom a confirm is for, when many publish at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use resonant_common::join::MemoryLeaseStore;
use resonant_queue::{Key, PartitionedQueue, RabbitMq};

use super::broker;
use super::support::until;

const PARTITIONS: u32 = 4;

/// The queue of a partition is deleted under load: nothing published into it afterwards is confirmed, and of the others
/// exactly what was confirmed is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_confirmed_beside_a_missing_queue_is_stored() {
    let vhost = broker().await.vhost().await.unwrap();
    let open = async |create: bool| {
        let rabbit = RabbitMq::connect([vhost.url()]).leases(Arc::new(MemoryLeaseStore::new()));
        let rabbit = rabbit.create_queues(create).await.unwrap();
        let builder = PartitionedQueue::<u64>::builder("confirms").partitions(PARTITIONS);
        builder.key(|number: &u64| number % 20).backend(rabbit).build().await.unwrap()
    };
    open(true).await.close().await;
    let queue = open(false).await;
    let partition = |number: u64| Key::from(number % 20).partition(PARTITIONS) as usize;
    let gone = partition(0);
    let counts = || Arc::new([const { AtomicU64::new(0) }; PARTITIONS as usize]);
    let (stored, in_doubt) = (counts(), counts());
    let deleted = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = (0..64)
        .map(|task| {
            let (queue, deleted) = (queue.clone(), Arc::clone(&deleted));
            let (stored, in_doubt) = (Arc::clone(&stored), Arc::clone(&in_doubt));
            tokio::spawn(async move {
                for number in (0..200).map(|turn| turn * 64 + task) {
                    let late = deleted.load(Ordering::SeqCst);
                    let place = partition(number);
                    match queue.publish(&number).await {
                        Ok(_) => {
                            assert!(!(late && place == gone), "confirmed, and stored nowhere");
                            stored[place].fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) if error.may_have_applied() => {
                            in_doubt[place].fetch_add(1, Ordering::SeqCst);
                        }
                        // All are refused once it is known that something is missing.
                        Err(_) if late => return,
                        Err(_) => {}
                    }
                }
            })
        })
        .collect();
    let connection =
        Connection::connect(&vhost.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let load = |of: usize| stored[of].load(Ordering::SeqCst);
    until("they are under way", async || load(gone) > 50).await;
    let name = format!("confirms.p.{gone}");
    channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    deleted.store(true, Ordering::SeqCst);
    for publisher in publishers {
        publisher.await.unwrap();
    }
    for other in (0..PARTITIONS as usize).filter(|other| *other != gone) {
        let name = format!("confirms.p.{other}");
        let (least, most) = (load(other), load(other) + in_doubt[other].load(Ordering::SeqCst));
        let mut there = 0;
        // A busy queue that answers late is reported as empty.
        until("what is stored is counted", async || {
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let asked = channel.queue_declare(name.as_str().into(), passive, FieldTable::default());
            there = u64::from(asked.await.unwrap().message_count());
            there >= least
        })
        .await;
        assert!(there <= most, "{there} of {least} to {most} in {other}");
    }
}
