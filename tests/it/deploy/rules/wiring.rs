//! Names, ports, hosts and images lead from file to file.

use serde_json::Value;

use super::{Wrong, compose_words};
use crate::deploy::files::{at, list, number, words};
use crate::deploy::model::Model;

pub(super) fn one_port(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    let listen = model.settings["http"]["listen"].as_str().unwrap_or_default();
    let port: f64 = listen.rsplit(':').next().and_then(|it| it.parse().ok()).unwrap_or(f64::NAN);
    for (role, deployed) in model.roles() {
        let container = deployed.container();
        wrong.same(role, number(container, "ports.0.containerPort"), port);
        let annotations = &deployed.deployment["spec"]["template"]["metadata"]["annotations"];
        wrong.same(
            "scrape",
            annotations["prometheus.io/port"]
                .as_str()
                .and_then(|it| it.parse().ok())
                .unwrap_or(f64::NAN),
            port,
        );
        let name = words(container, "ports.0.name");
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let asked = words(container, &format!("{probe}.httpGet.port"));
            wrong.unless(asked == name, format!("{role}: {probe} asks {asked}"));
        }
        let service = model.find("Service", &format!("resonant-{role}"));
        wrong.same("service", number(service, "spec.ports.0.port"), port);
        wrong.unless(words(service, "spec.ports.0.targetPort") == name, "targetPort");
    }
    for ingress in model.files.yaml("deploy/kubernetes/ingress/ingress.yaml") {
        let path = "spec.rules.0.http.paths.0.backend.service.port.number";
        wrong.same("ingress", number(&ingress, path), port);
    }
    for route in model.of_kind("HTTPRoute") {
        for backend in list(route, "spec.rules").iter().flat_map(|rule| list(rule, "backendRefs")) {
            wrong.same("route", number(backend, "port"), port);
        }
    }
    for server in model.nginx.all("upstream").flat_map(|it| it.all("server")) {
        let of_it = server.words[0].rsplit(':').next().and_then(|it| it.parse().ok());
        wrong.same("nginx", of_it.unwrap_or(f64::NAN), port);
    }
    wrong.same("terraform", number(model.resource("aws_lb_target_group.api"), "port"), port);
    let docker = model.files.text("deploy/Dockerfile");
    wrong.unless(docker.contains(&format!("EXPOSE {port}\n")), "Dockerfile");
    let script = model.files.text("deploy/terraform/user_data.sh.tftpl");
    wrong.unless(script.contains(&format!("--publish {port}:{port} ")), "user_data");
    wrong.0
}

pub(super) fn names(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    let page = model.files.text("docs/deploy.md");
    for deployment in model.of_kind("Deployment") {
        let name = words(deployment, "metadata.name");
        let labels = at(deployment, "spec.template.metadata.labels");
        wrong.unless(
            selected(at(deployment, "spec.selector.matchLabels"), labels),
            format!("{name} does not select its own pods"),
        );
        for spread in list(deployment, "spec.template.spec.topologySpreadConstraints") {
            wrong.unless(
                selected(at(spread, "labelSelector.matchLabels"), labels),
                format!("{name} spreads others"),
            );
        }
        let chosen =
            |kind: &str, path: &str| model.of_kind(kind).any(|it| selected(at(it, path), labels));
        wrong.unless(chosen("Service", "spec.selector"), format!("{name} has no Service"));
        wrong.unless(
            chosen("PodDisruptionBudget", "spec.selector.matchLabels"),
            format!("{name} has no disruption budget"),
        );
        for volume in list(deployment, "spec.template.spec.volumes") {
            let map = words(volume, "configMap.name");
            let made = map.is_empty()
                || model.of_kind("ConfigMap").any(|it| words(it, "metadata.name") == map);
            wrong.unless(made, format!("nobody makes the ConfigMap {map}"));
            let secret = words(volume, "secret.secretName");
            wrong.unless(
                secret.is_empty() || page.contains(&format!("generic {secret} ")),
                format!("docs/deploy.md does not say how {secret} is made"),
            );
        }
        let containers = list(deployment, "spec.template.spec.containers").iter();
        for variable in containers.flat_map(|it| list(it, "env")) {
            let reference = at(variable, "valueFrom.secretKeyRef");
            let told = reference.is_null()
                || (page.contains(&format!("generic {} ", words(reference, "name")))
                    && page.contains(&format!("{}=", words(reference, "key"))));
            wrong.unless(told, format!("docs/deploy.md does not say how {reference} is made"));
        }
    }
    for budget in model.of_kind("PodDisruptionBudget") {
        let name = words(budget, "metadata.name");
        let chosen = model.of_kind("Deployment").any(|it| {
            selected(
                at(budget, "spec.selector.matchLabels"),
                at(it, "spec.template.metadata.labels"),
            )
        });
        wrong.unless(chosen || name == "resonant-rabbitmq", format!("{name} protects nobody"));
    }
    let there =
        |kind: &str, name: &str| model.of_kind(kind).any(|it| words(it, "metadata.name") == name);
    let keda = model.files.yaml("deploy/kubernetes/keda/scaledobject.yaml").remove(0);
    for scaler in model.of_kind("HorizontalPodAutoscaler").chain([&keda]) {
        let target = words(scaler, "spec.scaleTargetRef.name");
        wrong.unless(there("Deployment", target), format!("{target} is scaled, and nowhere"));
    }
    for deployment in model.of_kind("Deployment") {
        let name = words(deployment, "metadata.name");
        let scaled = model
            .of_kind("HorizontalPodAutoscaler")
            .any(|it| words(it, "spec.scaleTargetRef.name") == name);
        wrong.unless(
            !scaled || deployment["spec"]["replicas"].is_null(),
            format!("{name} says its replicas, which are its autoscaler's"),
        );
    }
    let routes = model.of_kind("HTTPRoute").flat_map(|it| list(it, "spec.rules"));
    for backend in routes.flat_map(|rule| list(rule, "backendRefs")) {
        let name = words(backend, "name");
        wrong.unless(there("Service", name), format!("a route leads to {name}"));
    }
    for ingress in model.files.yaml("deploy/kubernetes/ingress/ingress.yaml") {
        let name = words(&ingress, "spec.rules.0.http.paths.0.backend.service.name");
        wrong.unless(there("Service", name), format!("an ingress leads to {name}"));
    }
    for (role, deployed) in model.roles() {
        let file = deployed.container()["args"][2].as_str().unwrap_or_default();
        let mount = words(deployed.container(), "volumeMounts.0.mountPath");
        wrong.unless(file == format!("{mount}/resonant.toml"), format!("{role} reads {file}"));
        wrong.unless(deployed.container()["args"][0] == role, format!("{role} has another role"));
    }
    wrong.0
}

fn selected(selector: &Value, labels: &Value) -> bool {
    let Some(selector) = selector.as_object() else { return false };
    !selector.is_empty() && selector.iter().all(|(name, value)| &labels[name] == value)
}

pub(super) fn hosts(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    let services = model.compose["services"].as_object();
    let service = |name: &str| services.is_some_and(|it| it.contains_key(name));
    for (name, line) in &model.pgbouncer["databases"] {
        let host =
            line.split_whitespace().find_map(|it| it.strip_prefix("host=")).unwrap_or_default();
        wrong.unless(service(host), format!("pgbouncer.ini: compose has no {host}"));
        let told = model
            .files
            .text(crate::deploy::settings::DEPLOYED)
            .contains(&format!(":6432/{name}\""));
        wrong.unless(told, format!("the settings do not use {name}"));
    }
    let mut urls = vec![model.database.primary.clone()];
    urls.extend(model.database.replicas.iter().cloned());
    let shards = model.settings["sharded_database"]["shards"].as_table();
    urls.extend(
        shards
            .into_iter()
            .flat_map(|it| it.values())
            .filter_map(toml::Value::as_str)
            .map(ToOwned::to_owned),
    );
    let port = model.pooler("listen_port");
    wrong.same(
        "pgbouncer's Service",
        number(model.find("Service", "pgbouncer"), "spec.ports.0.port"),
        port,
    );
    for url in urls {
        let database = url.strip_prefix(&format!("postgresql://pgbouncer:{port}/")).unwrap_or("?");
        let there = model.pgbouncer["databases"].contains_key(database);
        wrong.unless(there, format!("pgbouncer.ini has no database for {url}"));
    }
    for server in model.nginx.all("upstream").flat_map(|it| it.all("server")) {
        let host = server.words[0].split(':').next().unwrap_or_default();
        wrong.unless(service(host), format!("nginx.conf: compose has no {host}"));
    }
    let site = model.nginx.all("server").find_map(|it| it.word("server_name")).unwrap_or_default();
    for route in model.of_kind("HTTPRoute") {
        wrong.unless(words(route, "spec.hostnames.0") == site, "a route is of another host");
    }
    for ingress in model.files.yaml("deploy/kubernetes/ingress/ingress.yaml") {
        wrong.unless(words(&ingress, "spec.rules.0.host") == site, "an ingress is of another host");
        wrong.unless(
            words(&ingress, "spec.tls.0.hosts.0") == site,
            "a certificate is of another host",
        );
    }
    for listener in list(model.find("Gateway", "resonant"), "spec.listeners") {
        wrong.unless(words(listener, "hostname") == site, "the gateway is of another host");
    }
    wrong.0
}

/// The same image everywhere, and each role by its own name.
pub(super) fn image(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    let image = words(model.role("api").container(), "image");
    let config = "/etc/resonant/resonant.toml";
    for (role, deployed) in model.roles() {
        let of_it = words(deployed.container(), "image");
        wrong.unless(of_it == image, format!("{role} is {of_it}"));
        let services = model.compose["services"].as_object().into_iter().flatten();
        let instances: Vec<_> =
            services.filter(|it| it.0.starts_with(&format!("{role}-"))).collect();
        wrong.unless(instances.len() >= 2, format!("compose has one {role}"));
        for (name, service) in instances {
            wrong.unless(words(service, "image") == image, format!("{name} is another image"));
            let told = compose_words(model, name);
            wrong.unless(told == [role, "--config", config], format!("{name} does {told:?}"));
        }
    }
    let default = words(&model.terraform, "variable.image.default");
    wrong.unless(default == image, format!("terraform has {default}"));
    for path in ["deploy/Dockerfile", "deploy/kubernetes/overlays/local/kustomization.yaml"] {
        wrong.unless(model.files.text(path).contains(&format!("-t {image} .")), path);
    }
    let docker = model.files.text("deploy/Dockerfile");
    wrong.unless(docker.contains(&format!("CMD [\"api\", \"--config\", \"{config}\"]")), "CMD");
    let pooler =
        words(model.find("Deployment", "pgbouncer"), "spec.template.spec.containers.0.image");
    let composed = words(&model.compose["services"]["pgbouncer"], "image");
    wrong.unless(pooler == composed, format!("{pooler} is not {composed}"));
    wrong.0
}

/// The queue whose depth is looked at is the one of the settings, by the metric that the crates have.
pub(super) fn metric(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    let external =
        at(model.find("HorizontalPodAutoscaler", "resonant-worker-hpa"), "spec.metrics.0.external");
    let (name, queue) =
        (words(external, "metric.name"), words(external, "metric.selector.matchLabels.queue"));
    wrong.unless(
        name == resonant_common::telemetry::names::QUEUE_DEPTH.name,
        "the autoscaler's metric",
    );
    let queues = model.settings["queues"].as_table();
    wrong.unless(
        queues.is_some_and(|it| it.contains_key(queue)),
        format!("there is no queue {queue}"),
    );
    let values = model.files.yaml("deploy/kubernetes/hpa/prometheus-adapter-values.yaml").remove(0);
    let rule = at(&values, "rules.external.0");
    wrong.unless(words(rule, "name.as") == name, "the adapter calls it otherwise");
    wrong.unless(
        words(rule, "seriesQuery").starts_with(&format!("{name}{{")),
        "the adapter asks for another",
    );
    wrong.unless(
        words(rule, "metricsQuery").starts_with("max by (queue)"),
        "every process says the whole depth",
    );
    let keda = model.files.yaml("deploy/kubernetes/keda/scaledobject.yaml").remove(0);
    let query = words(&keda, "spec.triggers.0.metadata.query");
    wrong.unless(
        query.starts_with(&format!("max({name}{{queue=\"{queue}\"")),
        "KEDA asks for another",
    );
    wrong.0
}

/// These are started, or read whole, by the tests.
const RUN: [&str; 4] = [
    "deploy/nginx/nginx.conf",
    "deploy/pgbouncer/pgbouncer.ini",
    "deploy/kubernetes/base/resonant.toml",
    "deploy/kubernetes/overlays/local/resonant.toml",
];

pub(super) fn not_run(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    for path in model.files.paths().filter(|it| it.starts_with("deploy/") && !RUN.contains(it)) {
        // A script begins with its interpreter.
        let mut lines = model.files.text(path).lines().filter(|it| !it.starts_with("#!"));
        let says = lines
            .next()
            .is_some_and(|it| it.contains("Not run here") || it.contains("Not applied here"));
        wrong.unless(
            says || path.ends_with(".dockerignore"),
            format!("{path} does not say that it was not run"),
        );
    }
    wrong.0
}
