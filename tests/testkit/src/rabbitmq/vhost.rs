//! A virtual host per test: the cheap way to a clean broker.

use std::sync::atomic::{AtomicU64, Ordering};

use super::control::{self, binary};
use super::{RabbitMq, RabbitNode};
use crate::background;
use crate::error::{Error, ErrorKind, Result};

/// A virtual host of one test's own, deleted with its queues when this value is dropped.
#[derive(Debug)]
pub struct Vhost {
    rabbit: RabbitMq,
    name: String,
}

impl RabbitMq {
    /// Makes a virtual host in which `guest` may do everything. Takes some ten milliseconds.
    ///
    /// # Errors
    /// `Lost` when no node runs, `Rejected` when the broker refuses.
    pub async fn vhost(&self) -> Result<Vhost> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let vhost = Vhost { rabbit: self.clone(), name };
        let quoted = binary(&vhost.name);
        vhost
            .rabbit
            .any()?
            .eval(&format!(
                "ok = rabbit_vhost:add({quoted}, <<\"testkit\">>), \
                 ok = rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, {quoted}, <<\".*\">>, <<\".*\">>, \
                 <<\".*\">>, <<\"testkit\">>)."
            ))
            .await?;
        Ok(vhost)
    }

    /// The node that leads a queue now.
    ///
    /// # Errors
    /// `Rejected` when there is no such queue, `Lost` when no node runs.
    pub async fn leader_of(&self, vhost: &str, queue: &str) -> Result<RabbitNode> {
        let leader = self
            .any()?
            .eval(&format!(
                "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r({}, queue, {})), \
                 case amqqueue:get_pid(Q) of {{_, Node}} -> Node; Pid -> node(Pid) end.",
                binary(vhost),
                binary(queue)
            ))
            .await?;
        let node = self.nodes().iter().find(|node| node.erlang_name() == leader.trim_matches('\''));
        node.cloned().ok_or_else(|| {
            Error::new(ErrorKind::Rejected, format!("{queue} is led by {leader}, a stranger"))
        })
    }
}

impl Vhost {
    /// The virtual host's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL at the first node.
    pub fn url(&self) -> String {
        self.rabbit.node(0).url_in(&self.name)
    }

    /// The URLs at all nodes.
    pub fn urls(&self) -> Vec<String> {
        self.rabbit.nodes().iter().map(|node| node.url_in(&self.name)).collect()
    }

    /// Closes this virtual host's client connections, as an operator does (320, `CONNECTION_FORCED`), and returns how many
    /// there were. Like what follows it reaches clients of the first node only.
    ///
    /// # Errors
    /// Those of [`RabbitNode::eval`], as with all that follow.
    pub async fn close_connections(&self) -> Result<u64> {
        let close = format!(
            "Connections = [C || C <- rabbit_networking:local_connections(), \
             rabbit_networking:connection_info(C, [vhost]) =:= [{{vhost, {}}}]], \
             [rabbit_networking:close_connection(C, \"maintenance\") || C <- Connections], \
             length(Connections).",
            binary(&self.name)
        );
        super::faults::count(self.rabbit.any()?.eval(&close).await)
    }

    /// Closes this virtual host's channels with 406, `PRECONDITION_FAILED`, as after a client's mistake, and returns how
    /// many there were. The connections stay.
    ///
    /// # Errors
    /// See [`RabbitNode::eval`].
    pub async fn close_channels(&self) -> Result<u64> {
        let close = format!(
            "Channels = [C || C <- rabbit_channel:list_local(), \
             rabbit_channel:info(C, [vhost]) =:= [{{vhost, {}}}]], \
             [rabbit_channel:do(C, {{'basic.ack', {}, false}}) || C <- Channels], \
             length(Channels).",
            binary(&self.name),
            super::faults::IMPOSSIBLE_TAG
        );
        super::faults::count(self.rabbit.any()?.eval(&close).await)
    }

    /// Tells the consumers of a queue that they are cancelled, and returns how many there were. The queue and the channels
    /// stay.
    ///
    /// # Errors
    /// See [`RabbitNode::eval`].
    pub async fn cancel_consumers(&self, queue: &str) -> Result<u64> {
        let cancel = format!(
            "Name = rabbit_misc:r({}, queue, {}), {{ok, Q}} = rabbit_amqqueue:lookup(Name), \
             Consumers = [{{element(1, C), element(2, C)}} || C <- rabbit_amqqueue:consumers(Q)], \
             [rabbit_channel:send_command(C, {{'basic.cancel', Tag, true}}) || {{C, Tag}} <- Consumers], \
             length(Consumers).",
            binary(&self.name),
            binary(queue)
        );
        super::faults::count(self.rabbit.any()?.eval(&cancel).await)
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        // Behind the test's back, and without a handle to the node, which would keep the broker alive.
        if let (Ok(runtime), Ok(node)) = (background::handle(), self.rabbit.any()) {
            let delete = format!("rabbit_vhost:delete({}, <<\"testkit\">>).", binary(&self.name));
            let (socket, name) = (node.control_socket(), node.name().to_owned());
            runtime.spawn(async move { control::eval(&socket, &name, &delete).await });
        }
    }
}
