//! On real RabbitMQ. One is started for all tests of the binary; each test has a virtual host of its own.

mod access;
mod confirms;
mod conformance;
mod counting;
mod due;
mod faults;
mod fleet;
mod long;
mod losses;
mod other_programs;
mod reconnect;
mod sick;
mod support;
mod takeover;
mod traps;

use resonant_testkit::{RabbitMq, RabbitNode};
use tokio::sync::OnceCell;

/// The broker of tests that do it no harm.
pub(crate) async fn broker() -> &'static RabbitMq {
    static BROKER: OnceCell<RabbitMq> = OnceCell::const_new();
    BROKER.get_or_init(async || RabbitMq::start().await.unwrap()).await
}

/// A node of its own for a test that harms it.
pub(crate) async fn node() -> (RabbitMq, RabbitNode) {
    let rabbit = RabbitMq::start().await.unwrap();
    let node = rabbit.node(0);
    (rabbit, node)
}
