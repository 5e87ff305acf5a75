//! What must end before what.

use super::Wrong;
use crate::deploy::files::{list, number, seconds, words};
use crate::deploy::model::Model;

pub(super) fn grace(model: &Model) -> Vec<String> {
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

pub(super) fn drain(model: &Model) -> Vec<String> {
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

pub(super) fn requests_finish(model: &Model) -> Vec<String> {
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

pub(super) fn nested(model: &Model) -> Vec<String> {
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

pub(super) fn probes(model: &Model) -> Vec<String> {
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
