//! What the files say, in one place, for rules that need several of them.

use std::collections::BTreeMap;
use std::time::Duration;

use resonant_db::{DatabaseConfig, PoolConfig};
use resonant_health::HealthConfig;
use serde_json::Value;

use super::Files;
use super::files::{at, list, number, seconds, words};
use super::kustomize::render;
use super::nginx::{self, Directive};
use super::{settings, terraform};

pub(super) const ROLES: [&str; 3] = ["api", "worker", "session"];

#[derive(Debug)]
pub(super) struct Model {
    pub(super) files: Files,
    /// What `overlays/production` comes to.
    pub(super) production: Vec<Value>,
    pub(super) nginx: Directive,
    pub(super) pgbouncer: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) terraform: Value,
    pub(super) compose: Value,
    pub(super) settings: toml::Table,
    pub(super) database: DatabaseConfig,
    pub(super) health: HealthConfig,
    /// Seconds.
    pub(super) shutdown: f64,
}

impl Model {
    pub(super) fn new(files: &Files) -> Self {
        let settings = files.toml(settings::DEPLOYED);
        let shutdown = settings["service"]["shutdown_deadline"].as_str().map(seconds);
        Self {
            production: render(files, "deploy/kubernetes/overlays/production"),
            nginx: nginx::read(files),
            pgbouncer: files.ini("deploy/pgbouncer/pgbouncer.ini"),
            terraform: terraform::read(files),
            compose: files.yaml("deploy/compose.yaml").remove(0),
            database: settings::section(&settings, "database"),
            health: settings::section(&settings, "health"),
            shutdown: shutdown.unwrap_or(25.0),
            settings,
            files: files.clone(),
        }
    }

    pub(super) fn find(&self, kind: &str, name: &str) -> &Value {
        let found = self.of_kind(kind).find(|it| words(it, "metadata.name") == name);
        found.unwrap_or_else(|| panic!("production has no {kind} {name}"))
    }

    pub(super) fn of_kind<'a>(&'a self, kind: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        let kind = kind.to_owned();
        self.production.iter().filter(move |it| words(it, "kind") == kind)
    }

    pub(super) fn role(&self, role: &str) -> Role<'_> {
        let deployment = self.find("Deployment", &format!("resonant-{role}"));
        Role { deployment, model: self }
    }

    pub(super) fn roles(&self) -> impl Iterator<Item = (&'static str, Role<'_>)> {
        ROLES.iter().map(|role| (*role, self.role(role)))
    }

    /// A number of PgBouncer's.
    pub(super) fn pooler(&self, name: &str) -> f64 {
        let value = self.pgbouncer["pgbouncer"].get(name);
        value.and_then(|it| it.parse().ok()).unwrap_or(f64::NAN)
    }

    pub(super) fn poolers(&self) -> f64 {
        number(self.find("Deployment", "pgbouncer"), "spec.replicas")
    }

    /// The longest a request may take by what the service and PgBouncer give up after: for a connection of the pool, for one of
    /// the server, and for the statement.
    pub(super) fn longest_request(&self) -> f64 {
        let pool = self.database.pool.as_ref().map_or_else(PoolConfig::default, Clone::clone);
        let statement = self.database.statement_timeout.unwrap_or(Duration::MAX);
        pool.acquire_timeout.as_secs_f64()
            + self.pooler("query_wait_timeout")
            + statement.as_secs_f64()
    }

    /// A resource of Terraform.
    pub(super) fn resource(&self, path: &str) -> &Value {
        at(&self.terraform, &format!("resource.{path}"))
    }
}

/// One of the three Deployments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Role<'a> {
    pub(super) deployment: &'a Value,
    model: &'a Model,
}

impl<'a> Role<'a> {
    pub(super) fn pod(self) -> &'a Value {
        at(self.deployment, "spec.template.spec")
    }

    pub(super) fn container(self) -> &'a Value {
        at(self.pod(), "containers.0")
    }

    pub(super) fn name(self) -> &'a str {
        words(self.deployment, "metadata.name")
    }

    /// How long a probe may fail before something is done.
    pub(super) fn patience(self, probe: &str) -> f64 {
        let probe = at(self.container(), probe);
        number(probe, "periodSeconds") * number(probe, "failureThreshold")
    }

    pub(super) fn pause(self) -> f64 {
        number(self.container(), "lifecycle.preStop.sleep.seconds")
    }

    /// The autoscaler's bounds, or twice the fixed number.
    pub(super) fn pods(self) -> (f64, f64) {
        let fixed = number(self.deployment, "spec.replicas");
        let name = format!("{}-hpa", self.name());
        let mut scalers = self.model.of_kind("HorizontalPodAutoscaler");
        match scalers.find(|it| words(it, "metadata.name") == name) {
            Some(hpa) => (number(hpa, "spec.minReplicas"), number(hpa, "spec.maxReplicas")),
            None => (fixed, fixed),
        }
    }

    /// How many more there are for a while at their most, while they are replaced.
    pub(super) fn surge(self) -> f64 {
        let share = number(self.deployment, "spec.strategy.rollingUpdate.maxSurge") / 100.0;
        (self.pods().1 * share).ceil()
    }

    fn variable(self, name: &str) -> Option<f64> {
        let mut variables = list(self.container(), "env").iter();
        let variable = variables.find(|it| words(it, "name") == name)?;
        words(variable, "value").parse().ok()
    }

    /// The most connections a pod opens: to each node of the database, to each shard, and to all of them.
    pub(super) fn connections(self) -> (f64, f64, f64) {
        let settings = &self.model.settings;
        let size = |section: &str| settings[section]["pool"]["max_size"].as_integer().unwrap_or(0);
        let or = |variable, section| self.variable(variable).unwrap_or(size(section) as f64);
        let node = or("RESONANT__DATABASE__POOL__MAX_SIZE", "database");
        let shard = or("RESONANT__SHARDED_DATABASE__POOL__MAX_SIZE", "sharded_database");
        let nodes = 1 + self.model.database.replicas.len();
        let shards = settings["sharded_database"]["shards"].as_table().map_or(0, toml::Table::len);
        (node, shard, node * nodes as f64 + shard * shards as f64)
    }
}
