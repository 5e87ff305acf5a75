//! What the server can do to its clients.

use super::RabbitNode;
use super::control::binary;
use crate::error::Result;

/// An acknowledgement of a message that was never delivered: the channel is closed for it.
pub(super) const IMPOSSIBLE_TAG: u32 = u32::MAX;

impl RabbitNode {
    /// Makes the node believe that its memory is used up: whoever publishes, to any node of the cluster, is blocked. A
    /// connection's first message after the alarm still gets through; the broker stops reading after it.
    ///
    /// # Errors
    /// Those of [`eval`](Self::eval), as with all that follow.
    pub async fn raise_memory_alarm(&self) -> Result<()> {
        self.eval("rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}).").await.map(drop)
    }

    /// Ends the alarm: the blocked go on.
    ///
    /// # Errors
    /// See [`eval`](Self::eval).
    pub async fn clear_memory_alarm(&self) -> Result<()> {
        self.eval("rabbit_alarm:clear_alarm({resource_limit, memory, node()}).").await.map(drop)
    }

    /// How many client connections the node has.
    ///
    /// # Errors
    /// See [`eval`](Self::eval).
    pub async fn connections(&self) -> Result<u64> {
        count(self.eval("length(rabbit_networking:local_connections()).").await)
    }

    /// Closes all client connections to this node, as an operator does (320, `CONNECTION_FORCED`), and returns how many there
    /// were.
    ///
    /// # Errors
    /// See [`eval`](Self::eval).
    pub async fn close_connections(&self, reason: &str) -> Result<u64> {
        let reason = binary(reason);
        count(
            self.eval(&format!(
                "Connections = rabbit_networking:local_connections(), \
                 [rabbit_networking:close_connection(C, binary_to_list({reason})) || C <- Connections], \
                 length(Connections)."
            ))
            .await,
        )
    }

    /// Closes all channels on this node with 406, `PRECONDITION_FAILED`, as after a client's mistake, and returns how many there
    /// were. The connections stay.
    ///
    /// # Errors
    /// See [`eval`](Self::eval).
    pub async fn close_channels(&self) -> Result<u64> {
        count(
            self.eval(&format!(
                "Channels = rabbit_channel:list_local(), \
                 [rabbit_channel:do(C, {{'basic.ack', {IMPOSSIBLE_TAG}, false}}) || C <- Channels], \
                 length(Channels)."
            ))
            .await,
        )
    }
}

pub(super) fn count(answer: Result<String>) -> Result<u64> {
    Ok(answer?.parse().unwrap_or(0))
}
