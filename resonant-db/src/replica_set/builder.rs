//! Building a set.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::FutureExt;
use resonant_common::error::BoxError;
use resonant_common::join;

use crate::{Error, ErrorKind, Result};

use super::config::RoutingConfig;
use super::node::{Node, Observation};
use super::shared::{Parts, Shared};
use super::strategy::{Candidate, ReadStrategy};
use super::{ReplicaSet, Role};

/// Builds a [`ReplicaSet`]; made by [`ReplicaSet::builder`].
#[must_use = "a builder does nothing until it builds"]
pub struct ReplicaSetBuilder<P> {
    nodes: Vec<Given<P>>,
    parts: Parts<P>,
}

struct Given<P> {
    name: String,
    url: String,
    role: Role,
    handle: P,
}

impl<P: Clone + Send + Sync + 'static> ReplicaSetBuilder<P> {
    pub(super) fn new() -> Self {
        let parts = Parts {
            name: "db".into(),
            config: RoutingConfig::default(),
            strategy: ReadStrategy::default(),
            custom: None,
            probe: None,
            open: None,
            on_role: None,
            label: Arc::new(|node| node.name.to_string()),
        };
        Self { nodes: Vec::new(), parts }
    }

    /// The name in logs and metrics. Default `"db"`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.parts.name = name.into();
        self
    }

    /// The node that takes writes, until the nodes say otherwise.
    pub fn primary(self, name: impl Into<String>, handle: P) -> Self {
        self.node(name.into(), String::new(), Role::Primary, handle)
    }

    /// A node that answers reads.
    pub fn replica(self, name: impl Into<String>, handle: P) -> Self {
        self.node(name.into(), String::new(), Role::Replica, handle)
    }

    pub(crate) fn node(mut self, name: String, url: String, role: Role, handle: P) -> Self {
        self.nodes.push(Given { name, url, role, handle });
        self
    }

    /// How reads are spread over the replicas. Default round robin.
    pub fn read_strategy(mut self, strategy: ReadStrategy) -> Self {
        self.parts.strategy = strategy;
        self
    }

    /// A strategy of your own: the place of the node to ask among those that are fit, the primary included where it may be
    /// asked. For `None` the [`read_strategy`](ReplicaSetBuilder::read_strategy) chooses.
    pub fn choose_with<F>(mut self, choose: F) -> Self
    where
        F: Fn(&[Candidate<'_>]) -> Option<usize> + Send + Sync + 'static,
    {
        self.parts.custom = Some(Arc::new(choose));
        self
    }

    /// The settings of the routing.
    pub fn routing(mut self, config: RoutingConfig) -> Self {
        self.parts.config = config;
        self
    }

    /// How a node is asked what it is and how far it is; called in the background, with a limit. An error means that the node
    /// did not answer: it leaves the rotation until it does. Without a probe roles stay as they were given, and nothing is
    /// known of anybody's age.
    pub fn probe<F, Fut, E>(mut self, probe: F) -> Self
    where
        F: Fn(P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Observation, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.parts.probe = Some(Arc::new(move |handle| {
            let asked = probe(handle);
            async move { asked.await.map_err(Into::into) }.boxed()
        }));
        self
    }

    /// Opens a handle to a node that a followed topology names and the set does not know. Default: such a node is left out.
    pub fn open<F>(mut self, open: F) -> Self
    where
        F: Fn(&join::Node) -> Result<P> + Send + Sync + 'static,
    {
        self.parts.open = Some(Arc::new(open));
        self
    }

    /// Called when a node becomes the primary or a replica, without a lock held: the moment to close a demoted node's idle
    /// connections.
    pub fn on_role<F>(mut self, on_role: F) -> Self
    where
        F: Fn(&P, Role) + Send + Sync + 'static,
    {
        self.parts.on_role = Some(Arc::new(on_role));
        self
    }

    /// What the nodes are called in metrics. Default: their names.
    pub(crate) fn label(
        mut self,
        label: impl Fn(&Node<P>) -> String + Send + Sync + 'static,
    ) -> Self {
        self.parts.label = Arc::new(label);
        self
    }

    /// Builds the set. Nothing is awaited; on a Tokio runtime the nodes are asked from now on, elsewhere from the first
    /// call on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when there is no node, two primaries or one name twice, or a setting breaks a rule.
    pub fn build(self) -> Result<ReplicaSet<P>> {
        let wrong = |message: &str| Err(Error::new(ErrorKind::Config, "replica set", message));
        let names: std::collections::HashSet<_> =
            self.nodes.iter().map(|node| &node.name).collect();
        if names.len() < self.nodes.len() {
            return wrong("every node needs a name of its own");
        }
        if self.nodes.iter().filter(|node| node.role == Role::Primary).count() > 1 {
            return wrong("there is one primary at most; the others are replicas");
        }
        self.build_as_given()
    }

    /// As [`build`](Self::build), for nodes whose names may be the same.
    pub(crate) fn build_as_given(self) -> Result<ReplicaSet<P>> {
        let Self { nodes, parts } = self;
        parts.config.validate()?;
        if nodes.is_empty() {
            let message = "a node is needed: primary(name, handle)";
            return Err(Error::new(ErrorKind::Config, "replica set", message));
        }
        let probed = parts.probe.is_some() && nodes.len() > 1;
        let zones = &parts.config.zones;
        let nodes = nodes
            .into_iter()
            .map(|Given { name, url, role, handle }| {
                let zone = zones.get(&url).or_else(|| zones.get(&name)).map(String::as_str);
                Arc::new(Node::new(&name, &url, zone, handle, role, probed))
            })
            .collect();
        Ok(ReplicaSet::from_shared(Arc::new(Shared::new(parts, nodes))))
    }
}

impl<P> fmt::Debug for ReplicaSetBuilder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.nodes.iter().map(|node| &node.name).collect();
        f.debug_struct("ReplicaSetBuilder").field("nodes", &names).finish_non_exhaustive()
    }
}
