//! What `/cluster` says, and what of it is believed. Pure.

use resonant_common::join::{Node, Topology};
use serde_json::Value;

use crate::{Error, ErrorKind, Result};

/// An answer to `/cluster`, as far as it matters here. Whatever a member leaves out is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cluster {
    members: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    name: String,
    /// `leader`, or `master` in old versions; `standby_leader` takes no writes.
    leads: bool,
    running: bool,
    /// Host and port; missing while it is being created.
    place: Option<(String, u16)>,
    timeline: Option<u32>,
    /// It does not want to answer reads.
    spared: bool,
}

impl Cluster {
    pub(super) fn parse(body: &str) -> Result<Self> {
        let wrong = |what: &str| {
            let message = format!("what should be Patroni's answer to /cluster {what}");
            Error::new(ErrorKind::Unavailable, "patroni", message)
        };
        let body: Value = serde_json::from_str(body).map_err(|_| wrong("is no JSON"))?;
        let members = body.get("members").and_then(Value::as_array);
        let members = members.ok_or_else(|| wrong("lists no members"))?;
        Ok(Self { members: members.iter().filter_map(member).collect() })
    }

    fn leader(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.leads)
    }

    /// The history the leader says it writes.
    pub(super) fn timeline(&self) -> Option<u32> {
        self.leader()?.timeline
    }
}

fn member(value: &Value) -> Option<Member> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let whole = |key: &str| {
        let found = value.get(key)?;
        found.as_u64().or_else(|| found.as_str()?.parse().ok())
    };
    let host = text("host").filter(|host| !host.is_empty());
    let port = whole("port").map_or(Some(5432), |port| u16::try_from(port).ok());
    let tag = value.get("tags").and_then(|tags| tags.get("noloadbalance"));
    Some(Member {
        name: text("name")?.to_owned(),
        leads: matches!(text("role"), Some("leader" | "master")),
        // Before version 3 a replica that streams was said to be running.
        running: matches!(text("state"), None | Some("running" | "streaming")),
        place: host.map(str::to_owned).zip(port),
        timeline: whole("timeline").and_then(|timeline| u32::try_from(timeline).ok()),
        spared: tag
            .is_some_and(|tag| tag.as_bool().unwrap_or(false) || tag.as_str() == Some("true")),
    })
}

/// What was believed so far.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The newest history a leader was seen in.
    timeline: Option<u32>,
    /// The last leader.
    leader: Option<String>,
    last: Option<Topology>,
}

impl View {
    /// The topology a cluster tells, with an epoch that has risen if anything has changed.
    pub(super) fn judge(
        &mut self,
        cluster: &Cluster,
        url: impl Fn(&str, u16) -> String,
    ) -> Result<Topology> {
        let leader = cluster.leader();
        if let (Some(seen), Some(said)) = (self.timeline, cluster.timeline())
            && said < seen
        {
            let message = format!(
                "Patroni names a leader on timeline {said}, but one on timeline {seen} was seen before: the member that answers \
                 is cut off"
            );
            return Err(Error::new(ErrorKind::Unavailable, "patroni", message));
        }
        // Who does not say where it stands is believed only if it is the one that was known.
        let known = leader.is_some_and(|leader| self.leader.as_ref() == Some(&leader.name));
        let primary = leader.filter(|leader| {
            let dated = leader.timeline.is_some() || known || self.timeline.is_none();
            leader.running && leader.place.is_some() && dated
        });
        self.timeline = self.timeline.max(primary.and_then(|leader| leader.timeline));
        let nodes = cluster.members.iter().filter(|member| !member.spared || member.leads);
        let nodes = nodes.filter_map(|member| {
            let (host, port) = member.place.as_ref()?;
            Some(Node { name: member.name.clone(), url: url(host, *port) })
        });
        let mut nodes: Vec<Node> = nodes.collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let primary = primary.map(|leader| leader.name.clone());
        if primary.is_some() {
            self.leader.clone_from(&primary);
        }
        let same = |last: &&Topology| (&last.primary, &last.nodes) == (&primary, &nodes);
        if let Some(last) = self.last.as_ref().filter(same) {
            return Ok(last.clone());
        }
        let epoch = self.last.as_ref().map_or(0, |last| last.epoch) + 1;
        let topology = Topology { epoch, primary, nodes };
        self.last = Some(topology.clone());
        Ok(topology)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(host: &str, port: u16) -> String {
        format!("postgresql://{host}:{port}/app")
    }

    fn judge(view: &mut View, body: &str) -> Result<Topology> {
        view.judge(&Cluster::parse(body)?, url)
    }

    fn two(leader: &str, timeline: u32) -> String {
        let member = |name: &str, place: u8| {
            let (role, state) =
                if name == leader { ("leader", "running") } else { ("replica", "streaming") };
            format!(
                r#"{{"name":"{name}","role":"{role}","state":"{state}","host":"10.0.0.{place}","port":5432,"timeline":{timeline}}}"#
            )
        };
        format!(r#"{{"members":[{},{}]}}"#, member("a", 1), member("b", 2))
    }

    /// As version 4 answers, with everything that may be there.
    const FULL: &str = r#"{
        "members": [
            {"name": "pg-1", "role": "leader", "state": "running", "api_url": "http://10.0.0.1:8008/patroni",
             "host": "10.0.0.1", "port": 5432, "timeline": 11, "receive_lag": 0, "tags": {"nofailover": false}},
            {"name": "pg-2", "role": "sync_standby", "state": "streaming", "api_url": "http://10.0.0.2:8008/patroni",
             "host": "10.0.0.2", "port": 5433, "timeline": 11, "lag": 0, "receive_lsn": "0/7000148"},
            {"name": "pg-3", "role": "replica", "state": "streaming", "host": "10.0.0.3", "port": 5432, "timeline": 11,
             "lag": "unknown", "tags": {"noloadbalance": true}},
            {"name": "pg-4", "role": "replica", "state": "creating replica", "lag": "unknown"},
            {"name": "pg-5", "role": "replica", "state": "stopped", "host": "10.0.0.5", "port": "5432"},
            {"role": "replica"}, null
        ],
        "scope": "orders", "pause": true,
        "scheduled_switchover": {"at": "2026-01-01T00:00:00+00:00", "from": "pg-1"}
    }"#;

    #[test]
    fn everything_that_may_be_there_is_read_and_what_is_missing_is_missing() -> Result<()> {
        let topology = judge(&mut View::default(), FULL)?;
        let names: Vec<_> = topology.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(
            names,
            ["pg-1", "pg-2", "pg-5"],
            "who has no address or wants no reads is left out"
        );
        assert_eq!(topology.primary.as_deref(), Some("pg-1"));
        assert_eq!(topology.nodes[1].url, "postgresql://10.0.0.2:5433/app");
        // Old versions, and nothing but the least.
        let least = r#"{"members":[{"name":"a","role":"master","host":"h"}]}"#;
        let topology = judge(&mut View::default(), least)?;
        assert_eq!(topology.primary.as_deref(), Some("a"));
        assert_eq!(topology.nodes[0].url, "postgresql://h:5432/app");
        for wrong in ["", "[]", "{}", r#"{"members": 7}"#, "<html>"] {
            assert!(Cluster::parse(wrong).is_err(), "{wrong}");
        }
        Ok(())
    }

    #[test]
    fn the_epoch_rises_with_changes_only() -> Result<()> {
        let mut view = View::default();
        assert_eq!(judge(&mut view, &two("a", 1))?.epoch, 1);
        assert_eq!(judge(&mut view, &two("a", 1))?.epoch, 1);
        let moved = judge(&mut view, &two("b", 2))?;
        assert_eq!((moved.epoch, moved.primary.as_deref()), (2, Some("b")));
        Ok(())
    }

    #[test]
    fn a_lower_timeline_is_never_believed() -> Result<()> {
        let mut view = View::default();
        judge(&mut view, &two("b", 2))?;
        let error = judge(&mut view, &two("a", 1)).expect_err("cut off");
        assert!(error.to_string().contains("timeline 1"), "{error}");
        assert_eq!(judge(&mut view, &two("b", 2))?.primary.as_deref(), Some("b"));
        // Somebody else without a timeline could be anybody.
        let undated = two("a", 2).replace(r#","timeline":2"#, "");
        assert_eq!(judge(&mut view, &undated)?.primary, None);
        let undated = two("b", 2).replace(r#","timeline":2"#, "");
        assert_eq!(judge(&mut view, &undated)?.primary.as_deref(), Some("b"), "it was known");
        Ok(())
    }

    #[test]
    fn who_does_not_run_or_follows_another_cluster_takes_no_writes() -> Result<()> {
        let stopped = two("a", 1).replace(r#""state":"running""#, r#""state":"stopped""#);
        assert_eq!(judge(&mut View::default(), &stopped)?.primary, None);
        let standby = two("a", 1).replace(r#""leader""#, r#""standby_leader""#);
        assert_eq!(judge(&mut View::default(), &standby)?.primary, None);
        let none = two("nobody", 1);
        assert_eq!(judge(&mut View::default(), &none)?.primary, None);
        Ok(())
    }

    proptest! {
        #[test]
        fn epochs_and_timelines_never_fall(answers in proptest::collection::vec((0_usize..3, proptest::option::of(1_u32..5)), 1..40)) {
            let mut view = View::default();
            let (mut epoch, mut newest) = (0, 0);
            for (leader, timeline) in answers {
                let mut body = two(["a", "b", "nobody"][leader], timeline.unwrap_or(9));
                if timeline.is_none() {
                    body = body.replace(r#","timeline":9"#, "");
                }
                let Ok(topology) = judge(&mut view, &body) else { continue };
                prop_assert!(topology.epoch >= epoch);
                epoch = topology.epoch;
                if let (Some(_), Some(timeline)) = (&topology.primary, timeline) {
                    prop_assert!(timeline >= newest);
                    newest = timeline;
                }
            }
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = Cluster::parse(&text);
        }
    }
}
