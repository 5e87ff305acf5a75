//! What must hold between the files.

use resonant_scale::guide;
use serde_json::Value;

use super::Files;
use super::files::{at, list, number, quantity, seconds, words};
use super::model::{Model, ROLES};

/// Its name, and what is wrong by it: nothing, if all is well.
type Rule = (&'static str, fn(&Model) -> Vec<String>);

pub(super) const RULES: [Rule; 18] = [
    ("one port", one_port),
    ("names lead somewhere", names),
    ("pools fit PgBouncer", pools_fit_pgbouncer),
    ("PgBouncer fits the servers", pgbouncer_fits_the_servers),
    ("the grace period covers the end", grace),
    ("readiness is noticed while draining", drain),
    ("requests under way may finish", requests_finish),
    ("limits of time are nested", nested),
    ("probes and start-up", probes),
    ("bounds are the guide's", bounds),
    ("partitions for all workers", partitions),
    ("requests below limits", resources),
    ("disruption budgets", budgets),
    ("hardened pods", hardened),
    ("hosts are the same everywhere", hosts),
    ("one image in three roles", image),
    ("the metric of the queue", metric),
    ("what was not run says so", not_run),
];

/// What is wrong by one rule.
pub(super) fn broken(rule: &str, model: &Model) -> Vec<String> {
    let known = RULES.iter().find(|it| it.0 == rule);
    known.unwrap_or_else(|| panic!("there is no rule {rule}")).1(model)
}

#[test]
fn the_files_agree_with_each_other() {
    let model = Model::new(&Files::load());
    for (rule, _) in RULES {
        assert_eq!(broken(rule, &model), Vec::<String>::new(), "{rule}");
    }
}

/// Collects what does not hold.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn unless(&mut self, holds: bool, what: impl Into<String>) {
        if !holds {
            self.0.push(what.into());
        }
    }

    /// `below` is less than `above`; not a number is not.
    fn below(&mut self, below: (&str, f64), above: (&str, f64)) {
        self.unless(
            below.1 < above.1,
            format!("{} ({}) is not below {} ({})", below.0, below.1, above.0, above.1),
        );
    }

    fn at_most(&mut self, low: (&str, f64), high: (&str, f64)) {
        self.unless(
            low.1 <= high.1,
            format!("{} ({}) is above {} ({})", low.0, low.1, high.0, high.1),
        );
    }

    fn same(&mut self, what: &str, left: f64, right: f64) {
        self.unless(left == right, format!("{what}: {left} is not {right}"));
    }
}

fn one_port(model: &Model) -> Vec<String> {
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

fn names(model: &Model) -> Vec<String> {
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

fn pools_fit_pgbouncer(model: &Model) -> Vec<String> {
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

fn pgbouncer_fits_the_servers(model: &Model) -> Vec<String> {
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

fn compose_words(model: &Model, service: &str) -> Vec<String> {
    let service = &model.compose["services"][service];
    let texts = list(service, "command").iter().filter_map(Value::as_str);
    texts.map(ToOwned::to_owned).collect()
}

fn grace(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    for (role, deployed) in model.roles() {
        let granted = number(deployed.pod(), "terminationGracePeriodSeconds");
        let taken = deployed.pause() + model.shutdown;
        wrong.below(
            (&format!("preStop and end of {role}"), taken),
            ("terminationGracePeriodSeconds", granted),
        );
        let service = &model.compose["services"][format!("{role}-1")];
        wrong.below(
            ("shutdown_deadline", model.shutdown),
            ("stop_grace_period", seconds(words(service, "stop_grace_period"))),
        );
    }
    let script = model.files.text("deploy/terraform/user_data.sh.tftpl");
    let granted =
        script.split("--stop-timeout ").nth(1).and_then(|it| it.split_whitespace().next());
    wrong.below(
        ("shutdown_deadline", model.shutdown),
        ("--stop-timeout", granted.map_or(f64::NAN, seconds)),
    );
    wrong.0
}

fn drain(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    let delay = model.health.drain_delay.as_secs_f64();
    for (role, deployed) in model.roles() {
        let noticed = deployed.patience("readinessProbe")
            + number(deployed.container(), "readinessProbe.timeoutSeconds");
        wrong.below((&format!("readiness of {role}"), noticed), ("drain_delay", delay));
    }
    // The service itself waits at most a third of its deadline.
    wrong.at_most(("drain_delay", delay), ("a third of shutdown_deadline", model.shutdown / 3.0));
    wrong.0
}

fn requests_finish(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    let longest = model.longest_request();
    // Half of what is left is the requests'.
    let left = (model.shutdown - model.health.drain_delay.as_secs_f64()) / 2.0;
    wrong.at_most(("the longest request", longest), ("what the end leaves it", left));
    let group = model.resource("aws_lb_target_group.api");
    wrong.below(
        ("the longest request", longest),
        ("deregistration_delay", number(group, "deregistration_delay")),
    );
    wrong.0
}

fn nested(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    let statement = model.database.statement_timeout.map_or(f64::INFINITY, |it| it.as_secs_f64());
    let pool = model.database.pool.clone().unwrap_or_default();
    wrong.below(("statement_timeout", statement), ("query_timeout", model.pooler("query_timeout")));
    wrong.below(
        ("query_wait_timeout", model.pooler("query_wait_timeout")),
        ("acquire_timeout", pool.acquire_timeout.as_secs_f64()),
    );
    wrong.at_most(
        ("server_connect_timeout", model.pooler("server_connect_timeout")),
        ("query_wait_timeout", model.pooler("query_wait_timeout")),
    );
    let hung = model.longest_request() - statement + model.pooler("query_timeout");
    let of_nginx = |location: &str, name: &str| {
        let block = model.nginx.block("location", location);
        let server = model.nginx.all("server").find(|it| !it.inside.is_empty());
        let word = block.word(name).or_else(|| server.and_then(|it| it.word(name)));
        word.map_or(f64::NAN, seconds)
    };
    let ingresses = model.files.yaml("deploy/kubernetes/ingress/ingress.yaml");
    let of_ingress = |index: usize| {
        let annotations = &ingresses[index]["metadata"]["annotations"];
        let told = annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"].as_str();
        told.map_or(f64::NAN, seconds)
    };
    let balancer = number(model.resource("aws_lb.resonant"), "idle_timeout");
    let outer = [
        ("proxy_read_timeout", of_nginx("/", "proxy_read_timeout")),
        ("the ingress", of_ingress(0)),
        ("idle_timeout", balancer),
    ];
    for limit in outer {
        wrong.below(("a request at a server that hangs", hung), limit);
    }
    wrong.below(
        ("proxy_connect_timeout", of_nginx("/", "proxy_connect_timeout")),
        ("the longest request", model.longest_request()),
    );
    wrong.below(
        ("proxy_read_timeout", of_nginx("/", "proxy_read_timeout")),
        ("that of /ws", of_nginx("/ws", "proxy_read_timeout")),
    );
    wrong.below(("the ingress", of_ingress(0)), ("that of /ws", of_ingress(1)));
    for rule in model.of_kind("HTTPRoute").flat_map(|it| list(it, "spec.rules")) {
        if rule["timeouts"].is_null() {
            continue;
        }
        let request = seconds(words(rule, "timeouts.request"));
        let backend = seconds(words(rule, "timeouts.backendRequest"));
        match words(rule, "matches.0.path.value") {
            "/ws" => wrong.unless(request == 0.0 && backend == 0.0, "a route ends WebSockets"),
            _ => {
                wrong.below(("a request at a server that hangs", hung), ("the route's", backend));
                wrong.at_most(("backendRequest", backend), ("request", request));
            }
        }
    }
    wrong.0
}

fn probes(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    let health = &model.health;
    let pool = model.database.pool.clone().unwrap_or_default();
    // Connecting, and one run of all checks, the slowest way.
    let start = (pool.connect_timeout + health.interval + health.deadline).as_secs_f64();
    for (role, deployed) in model.roles() {
        let container = deployed.container();
        for (probe, path) in [
            ("startupProbe", "/health/startup"),
            ("livenessProbe", "/health/live"),
            ("readinessProbe", "/health/ready"),
        ] {
            let asked = words(container, &format!("{probe}.httpGet.path"));
            wrong.unless(asked == path, format!("{role}: {probe} asks {asked}"));
            let limit = number(container, &format!("{probe}.timeoutSeconds"));
            wrong.below(("timeout of a check", health.timeout.as_secs_f64()), (probe, limit));
            wrong.below(
                (probe, limit),
                ("its period", number(container, &format!("{probe}.periodSeconds"))),
            );
        }
        let patience = deployed.patience("startupProbe");
        wrong.at_most(("a slow start", start), ("startupProbe", patience));
        wrong.below(
            ("startupProbe", patience),
            (
                "progressDeadlineSeconds",
                number(deployed.deployment, "spec.progressDeadlineSeconds"),
            ),
        );
        wrong.below(
            ("readinessProbe", deployed.patience("readinessProbe")),
            ("livenessProbe", deployed.patience("livenessProbe")),
        );
    }
    wrong.0
}

fn bounds(model: &Model) -> Vec<String> {
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
        let there =
            super::kustomize::render(&model.files, &format!("deploy/kubernetes/overlays/{region}"));
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

fn partitions(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    let queues = model.settings["queues"].as_table();
    let partitions = queues.and_then(|it| it["session-tasks"]["partitions"].as_integer());
    let most = model.role("worker").pods().1;
    wrong.at_most(("workers", most), ("partitions", partitions.unwrap_or(0) as f64));
    wrong.0
}

fn resources(model: &Model) -> Vec<String> {
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

fn budgets(model: &Model) -> Vec<String> {
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

fn hardened(model: &Model) -> Vec<String> {
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

fn hosts(model: &Model) -> Vec<String> {
    let mut wrong = Wrong::default();
    let services = model.compose["services"].as_object();
    let service = |name: &str| services.is_some_and(|it| it.contains_key(name));
    for (name, line) in &model.pgbouncer["databases"] {
        let host =
            line.split_whitespace().find_map(|it| it.strip_prefix("host=")).unwrap_or_default();
        wrong.unless(service(host), format!("pgbouncer.ini: compose has no {host}"));
        let told = model.files.text(super::settings::DEPLOYED).contains(&format!(":6432/{name}\""));
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
fn image(model: &Model) -> Vec<String> {
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
fn metric(model: &Model) -> Vec<String> {
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

fn not_run(model: &Model) -> Vec<String> {
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
