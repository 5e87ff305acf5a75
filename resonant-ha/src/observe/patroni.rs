//! The topology as Patroni's REST API tells it.

use std::fmt;

use async_trait::async_trait;
use resonant_common::join::Node;
use serde::Deserialize;

use super::{Sighting, TopologySource};
use crate::error::{Error, ErrorKind, Result};
use crate::http;

/// Asks the members of a Patroni cluster, `GET /cluster`, one after the other until one answers.
///
/// The leader is the primary, replicas that run are the others, and the leader's timeline is the generation: a member that
/// has not heard of the last failover yet is not believed. Plain HTTP.
#[derive(Clone)]
pub struct PatroniSource {
    members: Vec<String>,
    template: String,
}

impl fmt::Debug for PatroniSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<&str> = self.members.iter().map(|member| http::shown(member)).collect();
        f.debug_struct("PatroniSource").field("members", &members).finish_non_exhaustive()
    }
}

impl PatroniSource {
    /// A source that asks these members, such as `http://10.0.0.1:8008`. `template` is the URL of a node, with `{host}` and
    /// `{port}` where Patroni's words go: `postgresql://app:secret@{host}:{port}/app`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`]: no member, one that is no `http://` URL, or a template without its two words.
    pub fn new<M: Into<String>>(
        members: impl IntoIterator<Item = M>,
        template: impl Into<String>,
    ) -> Result<Self> {
        let members: Vec<String> = members.into_iter().map(Into::into).collect();
        let template = template.into();
        if members.is_empty() || !members.iter().all(|member| member.starts_with("http://")) {
            return Err(crate::error::config(
                "Patroni's members must be http:// URLs, at least one",
            ));
        }
        if !template.contains("{host}") || !template.contains("{port}") {
            return Err(crate::error::config(
                "the template of a node's URL must hold {host} and {port}",
            ));
        }
        Ok(Self { members, template })
    }
}

#[derive(Deserialize)]
struct Cluster {
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    name: String,
    role: String,
    state: String,
    host: String,
    port: u16,
    #[serde(default)]
    timeline: Option<serde_json::Value>,
}

#[async_trait]
impl TopologySource for PatroniSource {
    async fn sight(&self) -> Result<Sighting> {
        let mut last = None;
        // All at once, so that a member that hangs costs nothing; the newest answer counts.
        let asked = self.members.iter().map(|member| {
            let url = format!("{}/cluster", member.trim_end_matches('/'));
            async move { tokio::time::timeout(http::PATIENCE, http::get(&url)).await }
        });
        let mut best: Option<Sighting> = None;
        for answer in futures::future::join_all(asked).await {
            let read = match answer {
                Ok(answer) => answer.and_then(|answer| self.read(&answer.body)),
                Err(_) => {
                    Err(Error::new(ErrorKind::TimedOut, "observe", "a member did not answer"))
                }
            };
            match read {
                Ok(sighting) => {
                    if best.as_ref().is_none_or(|best| sighting.generation > best.generation) {
                        best = Some(sighting);
                    }
                }
                Err(error) => last = Some(error),
            }
        }
        best.ok_or_else(|| {
            last.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, "observe", "no member"))
        })
    }
}

impl PatroniSource {
    fn read(&self, body: &str) -> Result<Sighting> {
        let cluster: Cluster = serde_json::from_str(body).map_err(|error| {
            let message = "the answer is none of Patroni's GET /cluster";
            Error::new(ErrorKind::Failed, "observe", message).with_source(error)
        })?;
        let mut sighting = Sighting::default();
        for member in cluster.members {
            let leads = matches!(member.role.as_str(), "leader" | "master" | "primary");
            if !matches!(member.state.as_str(), "running" | "streaming" | "in archive recovery") {
                continue;
            }
            if leads {
                sighting.primary = Some(member.name.clone());
                sighting.generation = member.timeline.and_then(|timeline| timeline.as_u64());
            }
            let url = self.template.replace("{host}", &member.host);
            let url = url.replace("{port}", &member.port.to_string());
            sighting.nodes.push(Node { name: member.name, url });
        }
        sighting.nodes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(sighting)
    }
}
