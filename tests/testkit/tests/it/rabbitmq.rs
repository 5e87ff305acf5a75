//! One RabbitMQ node, and what its clients see. A node takes seconds to start, so one test goes through all of it.

use std::time::Duration;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use resonant_testkit::{ErrorKind, FaultProxy, RabbitMq, Result};
use tokio::time::{Instant, timeout};

use crate::support::{SOON, assert_hangs, becomes, failure, freed};

/// A client as a service would have one: a connection and a channel with confirms.
#[derive(Debug)]
pub(crate) struct Client {
    connection: Connection,
    pub(crate) channel: Channel,
}

impl Client {
    pub(crate) async fn connect(url: &str) -> lapin::Result<Self> {
        let connecting = Connection::connect(url, ConnectionProperties::default());
        let connection = timeout(SOON, connecting).await.expect("the broker to answer")?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { connection, channel })
    }

    pub(crate) async fn declare(&self, queue: &str, kind: &str) -> lapin::Result<u32> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        Ok(self.channel.queue_declare(queue.into(), options, arguments).await?.message_count())
    }

    /// Publishes a persistent message; true when the broker confirmed it.
    pub(crate) async fn publish(&self, queue: &str, body: &str) -> lapin::Result<bool> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(2);
        let confirm = self
            .channel
            .basic_publish("".into(), queue.into(), options, body.as_bytes(), properties)
            .await?;
        Ok(confirm.await?.is_ack())
    }

    async fn get(&self, queue: &str) -> lapin::Result<Option<String>> {
        let message =
            self.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await?;
        Ok(message.map(|message| String::from_utf8_lossy(&message.delivery.data).into_owned()))
    }
}

/// Waits until something has become so in the client.
async fn seen(what: &str, so: impl Fn() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < SOON, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_node_blocks_closes_hangs_and_dies_and_keeps_what_it_confirmed() -> Result<()> {
    let started = Instant::now();
    let rabbit = RabbitMq::builder().tls().start().await?;
    println!("FIGURE RabbitMQ, one node: {:?}", started.elapsed());
    let node = rabbit.node(0);
    let (mine, other) = (rabbit.vhost().await?, rabbit.vhost().await?);
    let client = Client::connect(&mine.url()).await.expect("a client");
    client.declare("q", "classic").await.expect("a queue");
    assert!(client.publish("q", "first").await.expect("a publish"));

    // A virtual host is a broker of its own.
    let stranger = Client::connect(&other.urls()[0]).await.expect("a client");
    assert!(stranger.get("q").await.expect_err("no such queue").to_string().contains("NOT_FOUND"));
    assert_eq!(rabbit.leader_of(mine.name(), "q").await?.index(), 0);
    failure(rabbit.leader_of(other.name(), "q").await, ErrorKind::Rejected);

    // Out of memory: publishers wait (the first message still gets in), and are freed.
    node.raise_memory_alarm().await?;
    let publisher = async move {
        let both = (client.publish("q", "second").await, client.publish("q", "third").await);
        (both, client)
    };
    let stuck = assert_hangs(tokio::spawn(publisher)).await;
    node.clear_memory_alarm().await?;
    let ((second, third), client) = freed(stuck).await;
    assert!(second.expect("a publish") && third.expect("a publish"));

    // Frozen, and thawed.
    node.freeze()?;
    let stuck =
        assert_hangs(tokio::spawn(async move { (client.publish("q", "fourth").await, client) }))
            .await;
    node.thaw()?;
    let (confirmed, client) = freed(stuck).await;
    assert!(confirmed.expect("a publish"));

    // Thrown out: the channel, then the connection.
    assert!(node.close_channels().await? >= 1);
    seen("closing the channel", || !client.channel.status().connected()).await;
    client.publish("q", "x").await.expect_err("a closed channel");
    client.connection.create_channel().await.expect("the connection is still there");
    let proxy = FaultProxy::start(node.address()).await?;
    let client = Client::connect(&node.url_through(&proxy, mine.name())).await.expect("a client");
    assert!(node.connections().await? >= 1);
    assert!(node.close_connections("maintenance").await? >= 1);
    seen("closing the connection", || !client.connection.status().connected()).await;
    for words in ["precondition_failed", "connection_forced: \"maintenance\""] {
        let log = || std::fs::read_to_string(node.log_file()).unwrap_or_default();
        seen("a line in the log", || log().contains(words)).await;
    }

    // Dead, and back with what it confirmed.
    let client = Client::connect(&mine.url()).await.expect("a client");
    node.kill().await?;
    assert!(!node.is_running());
    client.publish("q", "lost").await.expect_err("nobody there");
    failure(node.eval("ok.").await, ErrorKind::Lost);
    Connection::connect(&mine.url(), ConnectionProperties::default())
        .await
        .expect_err("nobody there");
    node.start().await?;
    let client = Client::connect(&mine.url()).await.expect("a client");
    for body in ["first", "second", "third", "fourth"] {
        assert_eq!(client.get("q").await.expect("an answer").as_deref(), Some(body));
    }
    assert_eq!(client.get("q").await.expect("an answer"), None);

    // The other door: TLS.
    let port = node
        .tls_url()
        .expect("TLS is on")
        .rsplit_once(':')
        .map(|(_, rest)| rest.trim_end_matches("/%2f").to_owned());
    let script = format!(
        "printf 'AMQP\\0\\0\\011\\001' | timeout 5 openssl s_client -quiet -verify_return_error -CAfile {} -connect 127.0.0.1:{}",
        node.ca_file().expect("TLS is on").display(),
        port.expect("a port")
    );
    let output = tokio::process::Command::new("sh")
        .args(["-c", &script])
        .output()
        .await
        .expect("openssl runs");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("RabbitMQ"),
        "connection.start over TLS"
    );

    // A dropped virtual host goes away.
    let name = other.name().to_owned();
    drop(other);
    let gone = format!("rabbit_vhost:exists(<<\"{name}\">>).");
    becomes("going away", "false".to_owned(), async || node.eval(&gone).await).await?;

    // All of it ends with the last handle, though deleting a virtual host was begun a moment ago.
    let folder = node.log_file().parent().expect("a folder").to_owned();
    drop((mine, node, rabbit));
    assert!(!folder.exists(), "nobody holds it any more");
    Ok(())
}

#[tokio::test]
async fn a_setting_that_the_node_refuses_ends_in_an_error_with_its_log() {
    let error =
        failure(RabbitMq::builder().setting("no_such_key", "1").start().await, ErrorKind::Exited);
    assert!(error.log().is_some_and(|log| log.contains("no_such_key")), "{error:?}");
    failure(RabbitMq::builder().nodes(0).start().await, ErrorKind::Config);
}
