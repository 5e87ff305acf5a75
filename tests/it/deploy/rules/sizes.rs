//! What together must fit into what, and how pods are made.

use resonant_scale::guide;

use super::{Wrong, compose_words};
use crate::deploy::files::{at, list, number, quantity, words};
use crate::deploy::model::{Model, ROLES};

pub(super) fn pools_fit_pgbouncer(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    let all: f64 = model.roles().map(|(_, it)| it.pods().1 * it.connections().2).sum();
    let surge = model.roles().map(|(_, it)| it.surge() * it.connections().2);
    let each = model.pooler("max_client_conn");
    let poolers = model.poolers();
    wrong.at_most(
        ("all pools", all),
        ("what PgBouncers take when one is away", each * (poolers - 1.0)),
    );
    let rolling = all + surge.fold(0.0, f64::max);
    wrong.at_most(("all pools in a roll-out", rolling), ("what PgBouncers take", each * poolers));
    for (role, deployed) in model.roles() {
        let (node, ..) = deployed.connections();
        wrong.at_most(("min_size", least(model, role)), ("max_size", node));
    }
    wrong.0
}

fn least(model: &Model, role: &str) -> f64 {
    let variables = list(model.role(role).container(), "env").iter();
    let mut of_it =
        variables.filter(|it| words(it, "name") == "RESONANT__DATABASE__POOL__MIN_SIZE");
    match of_it.next() {
        Some(variable) => number(variable, "value"),
        None => model.database.pool.as_ref().map_or(10.0, |pool| f64::from(pool.min_size)),
    }
}

/// Kept for superusers by PostgreSQL, and to be left for everything that is not the service.
const KEPT: f64 = 3.0;

const OTHERS: f64 = 10.0;

pub(super) fn pgbouncer_fits_the_servers(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    let pool = model.pooler("default_pool_size") + model.pooler("reserve_pool_size");
    let most = model.pooler("max_db_connections");
    wrong.at_most(("pool and reserve", pool), ("max_db_connections", most));
    wrong.at_most(
        ("min_pool_size", model.pooler("min_pool_size")),
        ("default_pool_size", model.pooler("default_pool_size")),
    );
    let surge =
        number(model.find("Deployment", "pgbouncer"), "spec.strategy.rollingUpdate.maxSurge");
    for server in ["primary", "replica1", "shard0"] {
        let told = compose_words(model, server);
        let allowed = told.iter().find_map(|it| it.strip_prefix("max_connections="));
        let allowed = allowed.and_then(|it| it.parse().ok()).unwrap_or(f64::NAN);
        let wanted = (model.poolers() + surge) * most + KEPT + OTHERS;
        wrong.at_most(
            ("all PgBouncers and the others", wanted),
            (&format!("max_connections of {server}"), allowed),
        );
    }
    wrong.0
}

pub(super) fn bounds(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    let ours = [("api", guide::api()), ("worker", guide::workers())];
    for (role, config) in &ours {
        let (least, most) = model.role(role).pods();
        wrong.same(&format!("least of {role}"), least, f64::from(config.min_replicas));
        wrong.same(&format!("most of {role}"), most, f64::from(config.max_replicas));
    }
    let hpa = model.find("HorizontalPodAutoscaler", "resonant-api-hpa");
    let behavior = at(hpa, "spec.behavior");
    for (index, (resource, share)) in [("cpu", 70.0), ("memory", 80.0)].into_iter().enumerate() {
        let metric = &list(hpa, "spec.metrics")[index];
        wrong.unless(
            words(metric, "resource.name") == resource,
            format!("{resource} is not looked at"),
        );
        wrong.same(resource, number(metric, "resource.target.averageUtilization"), share);
    }
    for (path, value) in [
        ("scaleUp.stabilizationWindowSeconds", 60.0),
        ("scaleUp.policies.0.value", 4.0),
        ("scaleDown.stabilizationWindowSeconds", 300.0),
        ("scaleDown.policies.0.value", 10.0),
    ] {
        wrong.same(path, number(behavior, path), value);
    }
    let workers = model.find("HorizontalPodAutoscaler", "resonant-worker-hpa");
    let wanted = number(workers, "spec.metrics.0.external.target.averageValue");
    wrong.same("averageValue", wanted, 10.0);
    let keda = model.files.yaml("deploy/kubernetes/keda/scaledobject.yaml").remove(0);
    wrong.same(
        "KEDA's least",
        number(&keda, "spec.minReplicaCount"),
        model.role("worker").pods().0,
    );
    wrong.same("KEDA's most", number(&keda, "spec.maxReplicaCount"), model.role("worker").pods().1);
    wrong.same("KEDA's threshold", number(&keda, "spec.triggers.0.metadata.threshold"), wanted);
    let group = model.resource("aws_autoscaling_group.api");
    wrong.same("min_size", number(group, "min_size"), model.role("api").pods().0);
    wrong.same("max_size", number(group, "max_size"), model.role("api").pods().1);
    for (region, api, worker) in
        [("us-east-1", 5.0, 10.0), ("us-west-2", 3.0, 5.0), ("eu-west-1", 3.0, 5.0)]
    {
        let there = crate::deploy::kustomize::render(
            &model.files,
            &format!("deploy/kubernetes/overlays/{region}"),
        );
        for (role, least) in [("api", api), ("worker", worker)] {
            let name = format!("resonant-{role}-hpa");
            let hpa = there.iter().find(|it| words(it, "metadata.name") == name);
            let least_there = hpa.map_or(f64::NAN, |it| number(it, "spec.minReplicas"));
            wrong.same(&format!("{role} in {region}"), least_there, least);
            wrong.at_most((region, least_there), ("most", model.role(role).pods().1));
        }
    }
    wrong.0
}

pub(super) fn partitions(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    let queues = model.settings["queues"].as_table();
    let partitions = queues.and_then(|it| it["session-tasks"]["partitions"].as_integer());
    let most = model.role("worker").pods().1;
    wrong.at_most(("workers", most), ("partitions", partitions.unwrap_or(0) as f64));
    wrong.0
}

pub(super) fn resources(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    for deployment in model.of_kind("Deployment") {
        let name = words(deployment, "metadata.name");
        let resources = at(deployment, "spec.template.spec.containers.0.resources");
        for resource in ["cpu", "memory"] {
            let [asked, limit] = ["requests", "limits"].map(|it| {
                match words(resources, &format!("{it}.{resource}")) {
                    "" => f64::NAN,
                    text => quantity(text),
                }
            });
            wrong.at_most((&format!("{resource} of {name}"), asked), ("its limit", limit));
        }
    }
    wrong.0
}

pub(super) fn budgets(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    for role in ROLES {
        let budget = model.find("PodDisruptionBudget", &format!("resonant-{role}"));
        let least = model.role(role).pods().0;
        let told = at(budget, "spec.maxUnavailable");
        // Kubernetes rounds shares up.
        let away = match told.as_str() {
            Some(_) => (number(budget, "spec.maxUnavailable") / 100.0 * least).ceil(),
            None => told.as_f64().unwrap_or(f64::NAN),
        };
        wrong.unless(away >= 1.0, format!("{role}: no node can ever be emptied"));
        wrong.below((&format!("{role} that may be away"), away), ("the least", least));
        let deployed = model.role(role).deployment;
        let down = number(deployed, "spec.strategy.rollingUpdate.maxUnavailable");
        wrong.same(&format!("maxUnavailable of {role}"), down, 0.0);
    }
    wrong.0
}

pub(super) fn hardened(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    for deployment in model.of_kind("Deployment") {
        let name = words(deployment, "metadata.name");
        let pod = at(deployment, "spec.template.spec");
        let container = at(pod, "containers.0");
        let yes = |path: &str| at(pod, path) == true;
        let no = |path: &str| at(pod, path) == false;
        wrong.unless(yes("securityContext.runAsNonRoot"), format!("{name} may run as root"));
        wrong.unless(no("automountServiceAccountToken"), format!("{name} gets a token"));
        wrong.unless(
            no("containers.0.securityContext.allowPrivilegeEscalation"),
            format!("{name} may gain rights"),
        );
        wrong.unless(
            yes("containers.0.securityContext.readOnlyRootFilesystem"),
            format!("{name} may write"),
        );
        wrong.unless(
            words(container, "securityContext.capabilities.drop.0") == "ALL",
            format!("{name} has capabilities"),
        );
        wrong.unless(
            words(pod, "securityContext.seccompProfile.type") == "RuntimeDefault",
            format!("{name} may call what it likes"),
        );
        let image = words(container, "image");
        wrong.unless(
            image.contains(':') && !image.ends_with(":latest"),
            format!("{image} is any version"),
        );
        wrong.unless(
            list(pod, "topologySpreadConstraints").len() == 2,
            format!("{name} is not spread"),
        );
        let spoken = list(container, "env").iter().filter(|it| !it["value"].is_null());
        for variable in spoken {
            let name = words(variable, "name");
            wrong.unless(name.ends_with("_SIZE"), format!("{name} is written down"));
        }
    }
    let docker = model.files.text("deploy/Dockerfile");
    let last = docker.rsplit("\nFROM ").next().unwrap_or_default();
    wrong.unless(last.contains("\nUSER 65532:65532\n"), "the image runs as root");
    wrong.unless(docker.matches("\nFROM ").count() == 2, "the image has its build in it");
    wrong.unless(
        words(model.find("Namespace", "resonant"), "metadata.name") == "resonant",
        "the namespace",
    );
    wrong.0
}
