//! Deployments and StatefulSets of a Kubernetes cluster, by their scale subresource.
//!
//! A change is a read and a conditional write: whoever changed the object in between wins, and the next round decides anew.
//! Before each change the namespace's HorizontalPodAutoscalers are looked at; a target that one of them owns is refused, for
//! two autoscalers undo each other's work for ever.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, PostParams};
use kube::{Client, Config};

use super::{ScaleTarget, TargetState};
use crate::error::{Error, ErrorKind, Result, config};
use crate::hpa::Scale;

/// A Deployment or StatefulSet of a Kubernetes cluster.
///
/// Needs the rights to `get` it, to `get` and `update` its `scale`, and to `list` `horizontalpodautoscalers` of `autoscaling`
/// in its namespace.
///
/// ```no_run
/// # async fn example() -> Result<(), resonant_scale::Error> {
/// use resonant_scale::Kubernetes;
///
/// let workers = Kubernetes::deployment("production", "resonant-worker").connect().await?;
/// # drop(workers);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Kubernetes {
    place: Place,
    objects: Api<DynamicObject>,
    autoscalers: Api<DynamicObject>,
}

#[derive(Debug, Clone)]
struct Place {
    kind: &'static str,
    namespace: String,
    name: String,
}

/// Gathers what a [`Kubernetes`] target needs.
#[must_use = "a builder does nothing until `connect` is called"]
pub struct KubernetesBuilder {
    place: Place,
    server: Option<String>,
    token: Option<String>,
}

impl Kubernetes {
    /// The Deployment `name` of a namespace.
    pub fn deployment(namespace: impl Into<String>, name: impl Into<String>) -> KubernetesBuilder {
        KubernetesBuilder::new("Deployment", namespace.into(), name.into())
    }

    /// The StatefulSet `name` of a namespace.
    pub fn stateful_set(
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> KubernetesBuilder {
        KubernetesBuilder::new("StatefulSet", namespace.into(), name.into())
    }

    /// Refuses if a HorizontalPodAutoscaler scales it.
    async fn is_ours(&self) -> Result<()> {
        let listed = self.autoscalers.list(&ListParams::default()).await;
        let listed = listed.map_err(|error| {
            self.place.failed("set", "the namespace's HorizontalPodAutoscalers", error)
        })?;
        let owner = listed.items.iter().find(|autoscaler| {
            let target = &autoscaler.data["spec"]["scaleTargetRef"];
            let group = target["apiVersion"].as_str().unwrap_or("apps/v1");
            target["kind"] == self.place.kind
                && target["name"] == self.place.name.as_str()
                && group.split('/').next() == Some("apps")
        });
        let Some(owner) = owner else { return Ok(()) };
        let owner = owner.metadata.name.as_deref().unwrap_or("");
        let message = format!(
            "{} is scaled by the HorizontalPodAutoscaler {owner}; take one of the two away",
            self.place
        );
        Err(Error::new(ErrorKind::Owned, "set", message))
    }
}

impl KubernetesBuilder {
    fn new(kind: &'static str, namespace: String, name: String) -> Self {
        Self { place: Place { kind, namespace, name }, server: None, token: None }
    }

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

    /// Finds the cluster. Nothing is asked of it yet.
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) if there is no cluster to be found, or the URL cannot be read.
    pub async fn connect(self) -> Result<Kubernetes> {
        let mut settings = match &self.server {
            Some(url) => {
                Config::new(url.parse().map_err(|_| config("connect", "the URL cannot be read"))?)
            }
            None => Config::infer().await.map_err(|error| {
                config(
                    "connect",
                    "no cluster was found, neither around this process nor in a kubeconfig",
                )
                .with_source(error)
            })?,
        };
        if let Some(token) = self.token {
            settings.auth_info.token = Some(token.into());
        }
        settings.connect_timeout = Some(Duration::from_secs(5));
        settings.read_timeout = Some(Duration::from_secs(30));
        // The loop decides anew; what is asked a second time may no longer be right.
        settings.default_retry = false;
        let client = Client::try_from(settings)
            .map_err(|error| config("connect", "the client cannot be made").with_source(error))?;
        let resource = |group: &str, version: &str, kind: &str, plural: &str| ApiResource {
            group: group.into(),
            version: version.into(),
            api_version: format!("{group}/{version}"),
            kind: kind.into(),
            plural: plural.into(),
        };
        let plural = if self.place.kind == "Deployment" { "deployments" } else { "statefulsets" };
        let object = resource("apps", "v1", self.place.kind, plural);
        let autoscaler =
            resource("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers");
        let namespace = &self.place.namespace;
        Ok(Kubernetes {
            objects: Api::namespaced_with(client.clone(), namespace, &object),
            autoscalers: Api::namespaced_with(client, namespace, &autoscaler),
            place: self.place,
        })
    }
}

impl Place {
    /// An answer of the API server, in the words of this crate.
    fn failed(&self, operation: &'static str, what: &str, error: kube::Error) -> Error {
        let code = if let kube::Error::Api(status) = &error { status.code } else { 0 };
        let (kind, message) = match code {
            401 | 403 => (
                ErrorKind::Unavailable,
                format!("{what} may not be used; grant the rights the docs name"),
            ),
            404 => (ErrorKind::Unavailable, format!("there is no {what}")),
            409 => (ErrorKind::Conflict, format!("{what} was changed by somebody else meanwhile")),
            0 => (ErrorKind::Unavailable, format!("the API server did not answer for {what}")),
            code => (ErrorKind::Unavailable, format!("the API server answered {code} for {what}")),
        };
        let failed = Error::new(kind, operation, message).with_source(error);
        // A write whose answer was lost.
        if code == 0 && operation == "set" { failed.with_may_have_applied() } else { failed }
    }
}

#[async_trait]
impl ScaleTarget for Kubernetes {
    async fn read(&self) -> Result<TargetState> {
        let place = &self.place;
        let object = self.objects.get(&place.name).await;
        let object = object.map_err(|error| place.failed("read", &place.to_string(), error))?;
        let number = |path: &str| {
            let number = object.data.pointer(path).and_then(serde_json::Value::as_u64);
            number.map(|number| u32::try_from(number).unwrap_or(u32::MAX))
        };
        Ok(Scale {
            // What is left out is 1 for what is wanted, and 0 for what is.
            wanted: number("/spec/replicas").unwrap_or(1),
            existing: number("/status/replicas").unwrap_or(0),
            ready: Some(number("/status/readyReplicas").unwrap_or(0)),
        }
        .into())
    }

    async fn set(&self, replicas: u32) -> Result<()> {
        let place = &self.place;
        let failed = |error| place.failed("set", &place.to_string(), error);
        let wanted = i32::try_from(replicas).map_err(|_| {
            Error::new(ErrorKind::OutOfBounds, "set", "more replicas than Kubernetes counts")
        })?;
        self.is_ours().await?;
        let mut scale = self.objects.get_scale(&place.name).await.map_err(|error| {
            // Nothing was written yet.
            place.failed("read", &place.to_string(), error)
        })?;
        let spec = scale.spec.get_or_insert_default();
        if spec.replicas == Some(wanted) {
            return Ok(());
        }
        spec.replicas = Some(wanted);
        self.objects
            .replace_scale(&place.name, &PostParams::default(), &scale)
            .await
            .map_err(failed)?;
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

impl fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kubernetes").field(&self.place).finish()
    }
}

impl fmt::Debug for KubernetesBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KubernetesBuilder").field(&self.place).finish()
    }
}
