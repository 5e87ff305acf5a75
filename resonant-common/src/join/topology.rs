//! Who is the primary, as of which epoch.

use serde::{Deserialize, Serialize};

/// A node of a topology.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Its name, by which it is shown and remembered.
    pub name: String,
    /// Where it is reached, as a URL.
    pub url: String,
}

/// Which node is the primary, and which others there are, as of an epoch that only rises.
///
/// A follower ignores a topology whose epoch is not above the one it has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Topology {
    /// Rises with every change; never falls.
    pub epoch: u64,
    /// The name of the primary among `nodes`; `None` while there is none.
    pub primary: Option<String>,
    /// All nodes, the primary among them.
    pub nodes: Vec<Node>,
}

impl Topology {
    /// The primary's node, when there is one.
    pub fn primary_node(&self) -> Option<&Node> {
        let primary = self.primary.as_deref()?;
        self.nodes.iter().find(|node| node.name == primary)
    }

    /// Every node but the primary.
    pub fn replicas(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| Some(node.name.as_str()) != self.primary.as_deref())
    }

    /// Whether a follower that has `current` should take this one.
    pub fn supersedes(&self, current: &Topology) -> bool {
        self.epoch > current.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_primary_from_replicas_and_only_rises() {
        let node = |name: &str| Node {
            name: name.into(),
            url: format!("postgresql://{name}:5432/resonant"),
        };
        let first =
            Topology { epoch: 1, primary: Some("a".into()), nodes: vec![node("a"), node("b")] };
        assert_eq!(first.primary_node().map(|node| node.name.as_str()), Some("a"));
        assert_eq!(first.replicas().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["b"]);
        let second = Topology { epoch: 2, primary: None, ..first.clone() };
        assert!(
            second.supersedes(&first) && !first.supersedes(&second) && !first.supersedes(&first)
        );
        assert_eq!(second.replicas().count(), 2);
    }
}
