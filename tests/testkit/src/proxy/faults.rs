//! What is wrong with the network, as plain data.

use std::time::Duration;

/// One of the two directions of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the server to the client: answers.
    ToClient,
    /// From the client to the server: requests.
    ToServer,
}

impl Direction {
    /// The opposite one.
    pub fn other(self) -> Self {
        match self {
            Self::ToClient => Self::ToServer,
            Self::ToServer => Self::ToClient,
        }
    }
}

/// What happens to new connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Accept {
    /// They are let through.
    #[default]
    Normal,
    /// The client is refused at once.
    Refuse,
    /// The client waits for a connection that is not made.
    Hang,
}

/// The faults of one direction. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneFaults {
    /// How much later bytes arrive.
    pub delay: Duration,
    /// How much more at most, at random.
    pub jitter: Duration,
    /// How many bytes a second pass, per connection; `None` for no limit.
    pub bytes_per_second: Option<u64>,
    /// After how many bytes, counted from now or from the connection's start, it is reset; `None` for never.
    pub cut_after: Option<u64>,
    /// Whether bytes are held.
    pub blocked: bool,
}

/// Everything a [`FaultProxy`](super::FaultProxy) does. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The faults of requests.
    pub to_server: LaneFaults,
    /// The faults of answers.
    pub to_client: LaneFaults,
    /// What happens to new connections.
    pub accept: Accept,
    /// Whether the server's side of connections is closed without the client being told.
    pub half_open: bool,
}

impl Faults {
    /// The faults of one direction.
    pub fn lane(&self, direction: Direction) -> &LaneFaults {
        match direction {
            Direction::ToClient => &self.to_client,
            Direction::ToServer => &self.to_server,
        }
    }

    /// The same, to be changed.
    pub fn lane_mut(&mut self, direction: Direction) -> &mut LaneFaults {
        match direction {
            Direction::ToClient => &mut self.to_client,
            Direction::ToServer => &mut self.to_server,
        }
    }

    pub(super) fn both(&mut self, change: impl Fn(&mut LaneFaults)) {
        change(&mut self.to_server);
        change(&mut self.to_client);
    }
}
