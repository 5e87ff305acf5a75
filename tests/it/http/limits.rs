//! How often one may ask.

use resonant_sdk::http::ApiConfig;
use std::time::Duration;
use tokio::time::sleep;

use super::{SCALE, STATUS, Service, TOKEN, request};

#[tokio::test(start_paused = true)]
async fn a_burst_and_then_one_a_second() {
    let service = Service::with(|builder| builder.config(ApiConfig::default()));
    let dry = r#"{"replicas": 5, "dry_run": true}"#;
    for _ in 0..20 {
        assert_eq!(service.scale(dry, &[]).await.status.as_u16(), 200);
    }
    let refused = service.scale(dry, &[]).await;
    assert_eq!(
        (refused.problem(), refused.header("retry-after")),
        ((429, "too-many-requests".into()), "1")
    );
    sleep(Duration::from_secs(1)).await;
    assert_eq!(service.scale(dry, &[]).await.status.as_u16(), 200);
}

#[tokio::test(start_paused = true)]
async fn strangers_do_not_keep_operators_out() {
    let service = Service::with(|builder| builder.config(ApiConfig::default()));
    let mut refused = 0;
    for _ in 0..1000 {
        let wrong = Some("not the secret of ada");
        let answer = service.ask(request("POST", SCALE, wrong, &[], r#"{"replicas": 5}"#)).await;
        refused += usize::from(answer.status.as_u16() == 429);
        assert!([401, 429].contains(&answer.status.as_u16()));
        service.get("/api/v1/overview", None).await;
    }
    assert!(refused > 800, "{refused}");
    for path in [STATUS, "/api/v1/overview"] {
        assert_eq!(service.get(path, Some(TOKEN)).await.status.as_u16(), 200);
    }
    assert_eq!(service.scale(r#"{"replicas": 5}"#, &[]).await.status.as_u16(), 202);
    // Probes and scrapes are never refused.
    for path in ["/health", "/api/v1/health/live", "/api/v1/metrics"] {
        for _ in 0..300 {
            assert_ne!(service.get(path, None).await.status.as_u16(), 429);
        }
    }
}
