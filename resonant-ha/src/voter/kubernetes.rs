//! A voter that is a Lease object of a Kubernetes cluster.
//!
//! The API server compares and swaps: an object is replaced only as the version that was read, so of two who change it at the
//! same time one has to look again. That makes terms, owners and records safe. What the API server does not have is a say
//! in time: it stores how long a lease is for and never ends one. So each process judges by its own clock, from when it saw
//! the last grant or renewal; no stamp of another machine is compared, and none is written.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::{Client, Config};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use super::cell::Cell;
use super::{Ballot, Stored, Vote, Voter};
use crate::error::{Error, ErrorKind, Result};

/// What this voter keeps beside the fields of the Lease that everybody knows.
const KEPT: &str = "resonant.dev/voter";
/// How long a record may be: the API server takes 256 KiB of annotations.
const LONGEST: usize = 200 << 10;
/// How often an object that somebody else changed in between is looked at again.
const TRIES: usize = 8;

/// A voter that is a Lease object, `coordination.k8s.io/v1`, of a namespace.
///
/// The cluster's store is a quorum by itself, so one of these makes a [`Quorum`](super::Quorum), as long as the cluster does
/// not fail with a region that is failed over.
///
/// Needs the rights to `get`, `create` and `update` `leases` in the namespace. Give nobody the right to `delete` them: a term
/// that is deleted is a vote forgotten. A process that knew it goes on from there; one that did not begins anew.
///
/// A process that has only begun does not know when a lease was last renewed, so it counts its whole time from when it first
/// looks.
///
/// # Errors of its ballots
///
/// [`Config`](ErrorKind::Config): rights are missing, the name is none that an object can have, or the Lease belongs to
/// another program. [`Unsupported`](ErrorKind::Unsupported): a term above 2^31 or a record above 200 KiB.
/// [`Unavailable`](ErrorKind::Unavailable): the API server does not answer, or the object is changed all the time.
///
/// ```no_run
/// # async fn example() -> resonant_ha::Result<()> {
/// use resonant_ha::voter::{KubernetesVoter, Quorum};
///
/// let quorum = Quorum::of(KubernetesVoter::in_namespace("production").connect().await?);
/// # drop(quorum);
/// # Ok(()) }
/// ```
pub struct KubernetesVoter {
    namespace: String,
    leases: Api<DynamicObject>,
    domain: Option<String>,
    known: Mutex<HashMap<String, Known>>,
}

/// What this process has seen of a lease.
#[derive(Debug, Clone, Default)]
struct Known {
    term: u64,
    owner: String,
    /// Until when by this process's clock, and the renewal that was.
    until: Option<Instant>,
    renewals: u64,
}

/// What is in the annotation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Kept {
    /// Rises with each grant and renewal.
    renewals: u64,
    micros: u64,
    record: Option<(u64, u64, String)>,
}

/// Gathers what a [`KubernetesVoter`] needs.
#[must_use = "a builder does nothing until `connect` is called"]
pub struct KubernetesVoterBuilder {
    namespace: String,
    server: Option<String>,
    token: Option<String>,
    domain: Option<String>,
}

impl fmt::Debug for KubernetesVoterBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesVoterBuilder")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl KubernetesVoterBuilder {
    /// The API server's URL. Without it the cluster this process runs in, or the one of the kubeconfig.
    pub fn server(mut self, url: impl Into<String>) -> Self {
        self.server = Some(url.into());
        self
    }

    /// The token to send to [`server`](Self::server).
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The region the cluster would fail with.
    pub fn in_region(mut self, region: impl Into<String>) -> Self {
        self.domain = Some(region.into());
        self
    }

    /// Finds the cluster. Nothing is asked of it yet.
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) if there is no cluster to be found, or the URL cannot be read.
    pub async fn connect(self) -> Result<KubernetesVoter> {
        let bad = |what: &str| Error::new(ErrorKind::Config, "connect", what.to_owned());
        let mut settings = match &self.server {
            Some(url) => Config::new(url.parse().map_err(|_| bad("the URL cannot be read"))?),
            None => Config::infer().await.map_err(|error| {
                bad("no cluster was found, neither around this process nor in a kubeconfig")
                    .with_source(error)
            })?,
        };
        if let Some(token) = self.token {
            settings.auth_info.token = Some(token.into());
        }
        settings.connect_timeout = Some(Duration::from_secs(5));
        settings.read_timeout = Some(Duration::from_secs(10));
        // A ballot that comes twice is looked at twice; whoever casts it asks again.
        settings.default_retry = false;
        let client = Client::try_from(settings)
            .map_err(|error| bad("the client cannot be made").with_source(error))?;
        let resource = ApiResource {
            group: "coordination.k8s.io".into(),
            version: "v1".into(),
            api_version: "coordination.k8s.io/v1".into(),
            kind: "Lease".into(),
            plural: "leases".into(),
        };
        Ok(KubernetesVoter {
            leases: Api::namespaced_with(client, &self.namespace, &resource),
            namespace: self.namespace,
            domain: self.domain,
            known: Mutex::default(),
        })
    }
}

impl fmt::Debug for KubernetesVoter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesVoter")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl KubernetesVoter {
    /// Leases of this namespace.
    pub fn in_namespace(namespace: impl Into<String>) -> KubernetesVoterBuilder {
        let namespace = namespace.into();
        KubernetesVoterBuilder { namespace, server: None, token: None, domain: None }
    }

    /// What the object says, as far as this process may believe it, and what is kept in it.
    fn judge(&self, name: &str, object: Option<&DynamicObject>, now: Instant) -> Result<Judged> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(name.to_owned()).or_default();
        let Some(object) = object else {
            // It was deleted, if it ever was: its term and its lease live on here.
            let cell = known.cell(now, None);
            return Ok(Judged { cell, renewals: known.renewals });
        };
        let lease = Lease::read(object).ok_or_else(|| {
            let message = format!("the Lease {}/{name} belongs to another program", self.namespace);
            Error::new(ErrorKind::Config, "vote", message)
        })?;
        // What was read before this process's own last change counts for nothing; a release leaves the stamp as it is.
        let (stamp, last) = ((lease.term, lease.kept.renewals), (known.term, known.renewals));
        if stamp > last || (stamp == last && lease.owner.is_none()) {
            let until = lease.owner.is_some().then(|| now + lease.ttl());
            known.learn(lease.term, lease.owner.as_deref(), until, lease.kept.renewals);
        }
        let record = lease.kept.record.map(|(term, version, value)| {
            let value = value.into();
            Stored { term, version, value }
        });
        Ok(Judged { cell: known.cell(now, record), renewals: lease.kept.renewals })
    }

    /// Replaces the object as it was read, or makes it. False when somebody else did before.
    async fn store(
        &self,
        name: &str,
        object: Option<DynamicObject>,
        cell: &Cell,
        kept: &Kept,
    ) -> Result<bool> {
        let term = i32::try_from(cell.term).map_err(|_| {
            let message = "Kubernetes counts to 2147483647, and the term is higher";
            Error::new(ErrorKind::Unsupported, "vote", message)
        })?;
        if kept.record.as_ref().is_some_and(|record| record.2.len() > LONGEST) {
            let message = format!("a Lease keeps a record of {LONGEST} bytes at most");
            return Err(Error::new(ErrorKind::Unsupported, "vote", message));
        }
        let text = serde_json::to_string(kept).map_err(|error| {
            Error::new(ErrorKind::Failed, "vote", "the record cannot be kept").with_source(error)
        })?;
        // The known fields are for people who look; whole seconds, and at least one.
        let seconds = kept.micros.div_ceil(1_000_000).clamp(1, i32::MAX.cast_unsigned().into());
        let mut spec = json!({ "leaseTransitions": term, "leaseDurationSeconds": seconds });
        if cell.expires.is_some() {
            spec["holderIdentity"] = json!(cell.owner);
        }
        let stored = match object {
            Some(mut object) => {
                object.metadata.annotations.get_or_insert_default().insert(KEPT.into(), text);
                object.data["spec"] = spec;
                self.leases.replace(name, &PostParams::default(), &object).await
            }
            None => {
                let made = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": { "name": name, "namespace": self.namespace, "annotations": { KEPT: text } },
                    "spec": spec,
                });
                let made: DynamicObject = serde_json::from_value(made).map_err(|error| {
                    Error::new(ErrorKind::Failed, "vote", "no object can be made")
                        .with_source(error)
                })?;
                self.leases.create(&PostParams::default(), &made).await
            }
        };
        match stored {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            // Deleted in between.
            Err(kube::Error::Api(status)) if status.code == 404 && status.reason == "NotFound" => {
                Ok(false)
            }
            Err(error) => Err(self.failed(name, error).with_may_have_applied()),
        }
    }

    /// An answer of the API server, in the words of this crate.
    fn failed(&self, name: &str, error: kube::Error) -> Error {
        let place = format!("the Lease {}/{name}", self.namespace);
        let code = if let kube::Error::Api(status) = &error { status.code } else { 0 };
        let (kind, message) = match code {
            401 | 403 => (
                ErrorKind::Config,
                format!("{place} may not be used: grant get, create and update of leases"),
            ),
            404 => (ErrorKind::Config, format!("there is no place for {place}")),
            422 => (ErrorKind::Failed, format!("the API server refuses {place} as it is")),
            0 => (ErrorKind::Unavailable, format!("the API server did not answer for {place}")),
            code => (ErrorKind::Unavailable, format!("the API server answered {code} for {place}")),
        };
        Error::new(kind, "vote", message).with_source(error)
    }
}

struct Judged {
    cell: Cell,
    renewals: u64,
}

impl Known {
    fn learn(&mut self, term: u64, owner: Option<&str>, until: Option<Instant>, renewals: u64) {
        (self.term, self.until, self.renewals) = (term, until, renewals);
        if let Some(owner) = owner {
            owner.clone_into(&mut self.owner);
        }
    }

    /// The same as a voter in memory has it, on a clock that begins now.
    fn cell(&self, now: Instant, record: Option<Stored>) -> Cell {
        let expires = self.until.map(|until| until.saturating_duration_since(now));
        let expires = expires.filter(|remaining| !remaining.is_zero());
        Cell { term: self.term, owner: self.owner.clone(), expires, record }
    }
}

/// The object, read.
struct Lease {
    term: u64,
    owner: Option<String>,
    kept: Kept,
}

impl Lease {
    fn read(object: &DynamicObject) -> Option<Self> {
        let kept = object.metadata.annotations.as_ref()?.get(KEPT)?;
        let kept = serde_json::from_str(kept).ok()?;
        let term = object.data.pointer("/spec/leaseTransitions")?.as_u64()?;
        let owner = object.data.pointer("/spec/holderIdentity").and_then(|owner| owner.as_str());
        Some(Self { term, owner: owner.map(str::to_owned), kept })
    }

    fn ttl(&self) -> Duration {
        Duration::from_micros(self.kept.micros)
    }
}

/// Whether an object can have this name.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= 253
        && bytes.iter().all(|byte| fits(*byte))
        && ends(bytes.first())
        && ends(bytes.last())
}

#[async_trait]
impl Voter for KubernetesVoter {
    async fn cast(&self, name: &str, ballot: Ballot) -> Result<Vote> {
        if !is_name(name) {
            let message = format!(
                "{name:?} is no name for an object: small letters, digits, dashes and dots"
            );
            return Err(Error::new(ErrorKind::Config, "vote", message));
        }
        for _ in 0..TRIES {
            let object = self.leases.get_opt(name).await;
            let object = object.map_err(|error| self.failed(name, error))?;
            let now = Instant::now();
            let Judged { mut cell, renewals } = self.judge(name, object.as_ref(), now)?;
            if object.is_none() && !matches!(ballot, Ballot::Read | Ballot::Grant { .. }) {
                // Whoever held it has lost it; that it may be asked for later only is another matter.
                cell.expires = None;
            }
            let vote = cell.cast(Duration::ZERO, ballot.clone());
            if !vote.done || ballot == Ballot::Read {
                return Ok(vote);
            }
            let times =
                |ttl: &Duration| (renewals + 1, u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX));
            let (renewals, micros) = match &ballot {
                Ballot::Grant { ttl, .. } | Ballot::Renew { ttl, .. } => times(ttl),
                _ => {
                    let kept = object.as_ref().and_then(Lease::read).map(|lease| lease.kept);
                    (renewals, kept.map_or(0, |kept| kept.micros))
                }
            };
            let record = cell.record.clone();
            let record = record.map(|kept| (kept.term, kept.version, kept.value.to_string()));
            let kept = Kept { renewals, micros, record };
            if self.store(name, object, &cell, &kept).await? {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                let known = known.entry(name.to_owned()).or_default();
                // Of two calls of this process the later one may have been heard first.
                if (cell.term, renewals) >= (known.term, known.renewals) {
                    let until = cell.expires.map(|remaining| now + remaining);
                    known.learn(cell.term, Some(&cell.owner), until, renewals);
                }
                return Ok(vote);
            }
        }
        let message = format!("the Lease {}/{name} is changed all the time", self.namespace);
        Err(Error::new(ErrorKind::Unavailable, "vote", message))
    }

    fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }
}
