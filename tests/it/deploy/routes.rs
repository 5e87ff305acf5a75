//! The paths that probes, balancers and Prometheus ask are paths that the service has.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use resonant_health::HealthChecker;
use resonant_sdk::http::Api;
use tower::ServiceExt;

use super::Files;
use super::files::{list, words};
use super::model::Model;

/// Paths, with the file that has them asked.
fn asked(model: &Model) -> BTreeSet<(String, &'static str)> {
    let mut asked = BTreeSet::new();
    for (_, role) in model.roles() {
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let path = words(role.container(), &format!("{probe}.httpGet.path"));
            asked.insert((path.to_owned(), "a probe"));
        }
        let annotations = &role.deployment["spec"]["template"]["metadata"]["annotations"];
        asked.insert((annotations["prometheus.io/path"].as_str().unwrap().to_owned(), "a scrape"));
    }
    let group = model.resource("aws_lb_target_group.api");
    asked.insert((words(group, "health_check.path").to_owned(), "the balancer"));
    for rule in
        list(model.resource("aws_lb_listener_rule.metrics"), "condition.path_pattern.values")
    {
        asked.insert((rule.as_str().unwrap().to_owned(), "a rule of the balancer"));
    }
    for location in model.nginx.all("location") {
        let path = location.words.last().unwrap();
        if path != "/" && path != "/ws" {
            asked.insert((path.clone(), "nginx"));
        }
    }
    asked
}

#[tokio::test]
async fn every_path_that_is_asked_is_answered() {
    let health = HealthChecker::new().check("self", async || Ok::<(), std::io::Error>(()));
    health.run_all().await;
    let api = Api::builder().without_tokens().health(health).metrics(String::new).build().unwrap();
    let app = api.router::<()>();
    let asked = asked(&Model::new(&Files::load()));
    assert!(asked.len() >= 6, "{asked:?}");
    for (path, who) in asked {
        let request = Request::get(&path).body(Body::empty()).unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}, for {who}");
    }
    let request = Request::get("/health/alive").body(Body::empty()).unwrap();
    assert_eq!(app.oneshot(request).await.unwrap().status(), StatusCode::NOT_FOUND);
}
