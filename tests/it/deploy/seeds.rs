//! A mistake for every rule, as one makes it in a hurry, and that it is noticed by that rule.

use std::collections::BTreeSet;

use super::Files;
use super::model::Model;
use super::rules::{RULES, broken};

const BASE: &str = "deploy/kubernetes/base/resonant.toml";
const API: &str = "deploy/kubernetes/base/api.yaml";
const WORKER: &str = "deploy/kubernetes/base/worker.yaml";
const SESSION: &str = "deploy/kubernetes/base/session.yaml";
const HPA: &str = "deploy/kubernetes/hpa/hpa.yaml";
const KEDA: &str = "deploy/kubernetes/keda/scaledobject.yaml";
const ADAPTER: &str = "deploy/kubernetes/hpa/prometheus-adapter-values.yaml";
const ROUTE: &str = "deploy/kubernetes/gateway/httproute.yaml";
const INGRESS: &str = "deploy/kubernetes/ingress/ingress.yaml";
const POOLER: &str = "deploy/pgbouncer/pgbouncer.yaml";
const INI: &str = "deploy/pgbouncer/pgbouncer.ini";
const NGINX: &str = "deploy/nginx/nginx.conf";
const COMPOSE: &str = "deploy/compose.yaml";
const ALB: &str = "deploy/terraform/alb.tf";
const ASG: &str = "deploy/terraform/asg.tf";
const WEST: &str = "deploy/kubernetes/overlays/us-west-2/kustomization.yaml";

/// The rule that notices, the file, what it says, and what it says by mistake.
const SEEDS: &[(&str, &str, &str, &str)] = &[
    ("one port", API, "containerPort: 8000", "containerPort: 8080"),
    ("one port", NGINX, "server api-2:8000", "server api-2:8080"),
    ("one port", BASE, "0.0.0.0:8000", "0.0.0.0:9000"),
    (
        "names lead somewhere",
        SESSION,
        "    metadata:\n      labels: *labels\n",
        "    metadata:\n      labels: {}\n",
    ),
    ("names lead somewhere", HPA, "name: resonant-worker\n", "name: resonant-workers\n"),
    ("names lead somewhere", WORKER, "name: db-credentials", "name: db-credential"),
    ("names lead somewhere", ROUTE, "name: resonant-session", "name: resonant-sessions"),
    (
        "names lead somewhere",
        "deploy/kubernetes/hpa/kustomization.yaml",
        "- op: remove\n        path: /spec/replicas",
        "- op: replace\n        path: /spec/replicas\n        value: 3",
    ),
    ("pools fit PgBouncer", BASE, "max_size = 8", "max_size = 100"),
    ("pools fit PgBouncer", HPA, "maxReplicas: 50", "maxReplicas: 60"),
    ("pools fit PgBouncer", INI, "max_client_conn = 1000", "max_client_conn = 500"),
    ("pools fit PgBouncer", WORKER, "value: \"1\"", "value: \"9\""),
    ("PgBouncer fits the servers", POOLER, "replicas: 3", "replicas: 4"),
    ("PgBouncer fits the servers", POOLER, "maxSurge: 0", "maxSurge: 1"),
    ("PgBouncer fits the servers", INI, "default_pool_size = 50", "default_pool_size = 80"),
    ("PgBouncer fits the servers", COMPOSE, "max_connections=200", "max_connections=100"),
    (
        "the grace period covers the end",
        API,
        "terminationGracePeriodSeconds: 120",
        "terminationGracePeriodSeconds: 30",
    ),
    ("the grace period covers the end", WORKER, "seconds: 5", "seconds: 25"),
    (
        "the grace period covers the end",
        COMPOSE,
        "stop_grace_period: 120s",
        "stop_grace_period: 10s",
    ),
    ("readiness is noticed while draining", BASE, "drain_delay = \"10s\"", "drain_delay = \"5s\""),
    ("readiness is noticed while draining", API, "failureThreshold: 1\n", "failureThreshold: 3\n"),
    (
        "requests under way may finish",
        BASE,
        "shutdown_deadline = \"100s\"",
        "shutdown_deadline = \"60s\"",
    ),
    (
        "requests under way may finish",
        ALB,
        "deregistration_delay = 60",
        "deregistration_delay = 10",
    ),
    ("limits of time are nested", NGINX, "proxy_read_timeout 300s", "proxy_read_timeout 30s"),
    ("limits of time are nested", INI, "query_timeout = 40", "query_timeout = 20"),
    (
        "limits of time are nested",
        BASE,
        "statement_timeout = \"30s\"",
        "statement_timeout = \"600s\"",
    ),
    ("limits of time are nested", ALB, "idle_timeout = 300", "idle_timeout = 30"),
    ("limits of time are nested", ROUTE, "request: 0s", "request: 60s"),
    (
        "limits of time are nested",
        INGRESS,
        "proxy-read-timeout: \"300\"",
        "proxy-read-timeout: \"30\"",
    ),
    ("probes and start-up", API, "path: /health/live", "path: /health"),
    ("probes and start-up", API, "failureThreshold: 60", "failureThreshold: 5"),
    ("probes and start-up", BASE, "timeout = \"800ms\"", "timeout = \"2s\""),
    (
        "probes and start-up",
        SESSION,
        "periodSeconds: 10\n            timeoutSeconds: 1\n            failureThreshold: 3",
        "periodSeconds: 1\n            timeoutSeconds: 1\n            failureThreshold: 3",
    ),
    ("bounds are the guide's", HPA, "maxReplicas: 20", "maxReplicas: 10"),
    ("bounds are the guide's", KEDA, "maxReplicaCount: 50", "maxReplicaCount: 500"),
    ("bounds are the guide's", ASG, "max_size            = 20", "max_size            = 2"),
    ("bounds are the guide's", WEST, "value: 5", "value: 50"),
    ("partitions for all workers", BASE, "partitions = 64", "partitions = 16"),
    ("requests below limits", SESSION, "memory: 4Gi", "memory: 1Gi"),
    (
        "requests below limits",
        API,
        "            limits:\n              cpu: \"2\"\n",
        "            limits:\n",
    ),
    ("disruption budgets", API, "maxUnavailable: 1\n", "maxUnavailable: 3\n"),
    ("disruption budgets", WORKER, "maxUnavailable: 20%", "maxUnavailable: 0"),
    ("disruption budgets", SESSION, "      maxUnavailable: 0\n", "      maxUnavailable: 1\n"),
    ("hardened pods", API, "runAsNonRoot: true", "runAsNonRoot: false"),
    ("hardened pods", WORKER, "service:0.1.0", "service:latest"),
    ("hardened pods", SESSION, "drop: [\"ALL\"]", "drop: []"),
    (
        "hardened pods",
        API,
        "              valueFrom:\n                secretKeyRef:\n                  name: db-credentials\n                  key: url\n",
        "              value: postgresql://resonant@primary:5432/resonant\n",
    ),
    ("hosts are the same everywhere", INI, "host=replica2", "host=replica-2"),
    ("hosts are the same everywhere", BASE, ":6432/resonant_shard3", ":6432/resonant_shard4"),
    ("hosts are the same everywhere", NGINX, "server_name api.", "server_name www."),
    (
        "one image in three roles",
        COMPOSE,
        "image: resonantgenesis/service:0.1.0",
        "image: resonantgenesis/service:0.2.0",
    ),
    ("one image in three roles", COMPOSE, "command: [worker,", "command: [api,"),
    ("the metric of the queue", ADAPTER, "max by (queue)", "sum by (queue)"),
    ("the metric of the queue", HPA, "queue: session-tasks", "queue: sessions-tasks"),
    ("the metric of the queue", KEDA, "max(queue_depth", "max(queue_length"),
    ("what was not run says so", ALB, "# Not applied here", "# Applied here"),
];

#[test]
fn every_seeded_mistake_is_noticed_by_its_rule() {
    let files = Files::load();
    for (rule, path, from, to) in SEEDS {
        let seeded = Model::new(&files.with(path, from, to));
        assert!(!broken(rule, &seeded).is_empty(), "{rule}: {path}: {to:?} is not noticed");
    }
}

#[test]
fn every_rule_has_its_mistake() {
    let seeded: BTreeSet<&str> = SEEDS.iter().map(|seed| seed.0).collect();
    assert_eq!(seeded, RULES.iter().map(|rule| rule.0).collect());
}
