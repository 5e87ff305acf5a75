//! A cluster of three that loses its leader, and then its majority.

use resonant_testkit::{RabbitMq, RabbitNode, Result};
use tokio::time::{Instant, timeout};

use crate::rabbitmq::Client;
use crate::support::SOON;

/// Publishes through a node until the broker confirms it: while a leader is being elected it may refuse.
async fn publish(node: &RabbitNode, vhost: &str, body: &str) -> Client {
    let started = Instant::now();
    loop {
        if let Ok(client) = Client::connect(&node.url_in(vhost)).await
            && let Ok(Ok(true)) = timeout(SOON, client.publish("q", body)).await
        {
            return client;
        }
        assert!(started.elapsed() < SOON * 2, "nothing is confirmed any more");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_queue_survives_its_leader_and_waits_for_its_majority() -> Result<()> {
    let started = Instant::now();
    let rabbit = RabbitMq::builder().nodes(3).start().await?;
    println!("FIGURE RabbitMQ, three nodes: {:?}", started.elapsed());
    let vhost = rabbit.vhost().await?;
    let client = Client::connect(&vhost.url()).await.expect("a client");
    client.declare("q", "quorum").await.expect("a quorum queue");
    for body in ["1", "2", "3"] {
        assert!(client.publish("q", body).await.expect("a publish"));
    }

    let leader = rabbit.leader_of(vhost.name(), "q").await?;
    let others: Vec<RabbitNode> =
        rabbit.nodes().iter().filter(|node| node.index() != leader.index()).cloned().collect();
    leader.kill().await?;
    let killed = Instant::now();
    publish(&others[0], vhost.name(), "4").await;
    println!("FIGURE confirmed publish after the leader was killed: {:?}", killed.elapsed());
    let heir = rabbit.leader_of(vhost.name(), "q").await?;
    assert_ne!(heir.index(), leader.index());
    leader.start().await?;
    rabbit.settled().await?;

    // Two of three gone: the last one throws its clients out and confirms nothing.
    let last = &others[0];
    let client = Client::connect(&last.url_in(vhost.name())).await.expect("a client");
    leader.kill().await?;
    others[1].kill().await?;
    let confirmed = timeout(SOON, client.publish("q", "never")).await;
    assert!(!matches!(confirmed, Ok(Ok(true))), "a minority must not confirm: {confirmed:?}");
    rabbit.start_all().await?;
    let client = publish(last, vhost.name(), "5").await;
    assert!(client.declare("q", "quorum").await.expect("the queue") >= 5, "all that was confirmed");

    // One that is stopped in order is missed as little as one that was killed.
    others[1].stop().await?;
    assert!(!others[1].is_running());
    publish(last, vhost.name(), "6").await;
    Ok(())
}
