//! The status page in a real browser.
//!
//! With `RESONANT_SCREENSHOTS=<folder>` pictures are kept there, to be looked at.

mod chromium;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use resonant_common::join::{Node, Severity, Topology};
use resonant_health::{Check, HealthChecker};
use resonant_scale::testing::{FakeMetric, FakeTarget};
use resonant_scale::{Autoscaler, ScaleRequest, guide};
use resonant_sdk::http::{Api, rows};
use resonant_testkit::FaultProxy;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::chromium::{Chromium, Tab};
use crate::http::TOKEN;
use crate::workers;

const HOSTILE: &str = "<img src=x onerror=\"window.hacked=1\"><script>window.hacked=1</script>";

/// What is served, and every URL that was asked for.
struct Site {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Site {
    async fn serve(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let app = app.layer(middleware::from_fn(move |request: Request, next: Next| {
            seen.lock().unwrap().push(request.uri().to_string());
            next.run(request)
        }));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, asked, task }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A service in the middle of things.
async fn busy(depth: Arc<Mutex<u64>>) -> Api {
    let node = |name: &str| Node { name: name.into(), url: String::new() };
    let nodes = vec![node("us-east-1"), node("us-west-2"), node("eu-west-1")];
    let (_, topology) =
        watch::channel(Topology { epoch: 7, primary: Some("us-east-1".into()), nodes });
    let health = HealthChecker::new()
        .check("database", async || Ok::<_, std::io::Error>(()))
        .with(
            Check::new("cache", async || Err::<(), _>(std::io::Error::other("password=hunter2")))
                .degrading(),
        )
        .with(Check::new("queue", async || Ok::<_, std::io::Error>(())));
    health.run_all().await;
    let scaler = Autoscaler::builder("session-workers")
        .policy(guide::workers())
        .source("queue_depth", FakeMetric::new(93.0))
        .target(FakeTarget::new(4))
        .build()
        .unwrap();
    scaler.evaluate().await;
    let held = ScaleRequest::to(12).reason(HOSTILE).hold_for(Duration::from_secs(600));
    scaler.scale(held.actor("ada")).await.unwrap();
    scaler.evaluate().await;
    Api::builder()
        .service("flights")
        .token("ada", TOKEN)
        .health(health)
        .scaler(scaler)
        .topology(topology)
        .show(async || {
            let row = |name: &str, role: &str, lag, state| rows::Node {
                name: name.into(),
                role: Some(role.into()),
                lag_seconds: lag,
                region: Some("us-east-1".into()),
                state,
            };
            Ok::<_, std::io::Error>(vec![
                row("primary", "primary", None, Severity::Ok),
                row("replica1", "replica", Some(0.012), Severity::Ok),
                row("replica2", "replica", Some(48.0), Severity::Warn),
                row("replica3", "replica", Some(9000.0), Severity::Fail),
            ])
        })
        .show(move || {
            let depth = *depth.lock().unwrap();
            let row = |partition| rows::Queue {
                name: "session-tasks".into(),
                partition: Some(partition),
                depth: Some(depth + u64::from(partition)),
                oldest_seconds: Some(3.4),
                in_flight: Some(8),
                parked_keys: Some(0),
                dead: Some(0),
                ..Default::default()
            };
            let hostile = rows::Queue {
                name: HOSTILE.into(),
                state: Severity::Warn,
                depth: Some(1),
                ..Default::default()
            };
            let long = rows::Queue { name: "x".repeat(120), depth: Some(1), ..Default::default() };
            std::future::ready(Ok::<_, std::io::Error>(
                (0..4).map(row).chain([hostile, long]).collect::<Vec<_>>(),
            ))
        })
        .show(async || {
            let row = |number: u64| rows::Shard {
                name: format!("shard_{number}"),
                rows: Some(1_234_567 * number),
                failures: Some(0),
                ..Default::default()
            };
            Ok::<_, std::io::Error>((0..4).map(row).collect::<Vec<_>>())
        })
        .show(async || {
            Ok::<_, std::io::Error>(vec![rows::CacheTier {
                name: "process".into(),
                entries: Some(20_481),
                bytes: Some(48 << 20),
                hit_ratio: Some(0.9731),
                ..Default::default()
            }])
        })
        .show(async || {
            Ok::<_, std::io::Error>(vec![rows::Pool {
                name: "main".into(),
                in_use: Some(9),
                idle: Some(1),
                max: Some(10),
                waiting: Some(3),
                state: Severity::Warn,
            }])
        })
        .show(async || Err::<Vec<rows::Batch>, _>(std::io::Error::other("password=hunter2")))
        .build()
        .unwrap()
}

/// Text on its ground, everywhere, at least as WCAG's AA asks: 4.5 to 1. Answers the worst.
const CONTRAST: &str = r"(() => {
  const parse = (text) => { const it = text.match(/[\d.]+/g).map(Number); return it.length < 4 ? [...it, 1] : it; };
  const light = ([r, g, b]) => { const f = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }; return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const ground = (it) => { for (; it; it = it.parentElement) { const c = parse(getComputedStyle(it).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255, 1]; };
  let worst = { ratio: 99, text: '' }, count = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const it = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
    if (!text || !it.checkVisibility() || ['SCRIPT', 'STYLE', 'NOSCRIPT'].includes(it.tagName)) continue;
    const [a, b] = [light(parse(getComputedStyle(it).color)), light(ground(it))].sort((x, y) => y - x);
    // What shines through is not reckoned with; there is none.
    let solid = true;
    for (let up = it; up; up = up.parentElement) solid = solid && getComputedStyle(up).opacity === '1';
    const ratio = solid ? (a + 0.05) / (b + 0.05) : 0;
    count += 1;
    if (ratio < worst.ratio) worst = { ratio, text };
  }
  return { ...worst, count };
})()";

async fn looks_well(tab: &mut Tab<'_>, name: &str) {
    let overflow = tab.evaluate("document.documentElement.scrollWidth - innerWidth").await;
    assert!(overflow.as_i64().unwrap() <= 0, "{name} is {overflow} pixels too wide");
    let worst = tab.evaluate(CONTRAST).await;
    assert!(
        worst["ratio"].as_f64().unwrap() >= 4.5 && worst["count"].as_u64().unwrap() > 3,
        "{name}: {worst}"
    );
    tab.picture(name).await;
    assert_eq!(tab.complaints(), Vec::<String>::new(), "{name}");
}

async fn sign_in(tab: &mut Tab<'_>, token: &str) {
    tab.evaluate(&format!(
        "document.getElementById('token').value = {}; document.querySelector('#sign button').click()",
        serde_json::Value::from(token)
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_what_a_person_on_call_keeps_open() {
    let depth = Arc::new(Mutex::new(100));
    let site = Site::serve(busy(Arc::clone(&depth)).await.router()).await;
    let mut browser = Chromium::start().await;
    let mut tab = browser.open(&site.url()).await;
    // Without the token: how it is, and no name.
    tab.wait("document.querySelector('section[data-id=locked]') !== null").await;
    assert_eq!(tab.evaluate("document.getElementById('overall').textContent").await, "warn");
    let text = tab.text().await;
    assert!(
        !text.contains("session-tasks")
            && !text.contains("flights")
            && text.contains("There is more about"),
        "{text}"
    );
    looks_well(&mut tab, "locked").await;
    sign_in(&mut tab, "not the secret of ada").await;
    tab.wait("document.getElementById('banner').textContent.includes('not known')").await;
    tab.wait("document.querySelector('section[data-id=locked]') !== null").await;
    looks_well(&mut tab, "refused").await;
    // With it: everything.
    sign_in(&mut tab, TOKEN).await;
    tab.wait("document.querySelectorAll('section').length === 10").await;
    let text = tab.text().await;
    for shown in [
        "flights",
        "us-east-1",
        "replica3",
        "2.5 h",
        "session-tasks",
        "shard_3",
        "48.0 MiB",
        "97.3 %",
        "This could not be read",
        "cache",
        "session-workers",
        "held",
        "2–50",
        "3,703,701",
        HOSTILE,
    ] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    assert!(!text.contains("hunter2") && !text.contains(TOKEN));
    assert_eq!(
        tab.evaluate("window.hacked === undefined && document.querySelector('img') === null").await,
        true
    );
    tab.evaluate("document.querySelector('details').open = true").await;
    for (name, width, height, dark) in [
        ("wide", 1440, 1000, false),
        ("wide-dark", 1440, 1000, true),
        ("tablet", 800, 1000, false),
        ("narrow", 360, 740, false),
        ("narrow-dark", 360, 740, true),
    ] {
        tab.size(width, height, dark).await;
        looks_well(&mut tab, name).await;
    }
    // It looks again by itself, and keeps open what was opened.
    *depth.lock().unwrap() = 777;
    tab.wait("document.body.innerText.includes('777')").await;
    assert_eq!(tab.evaluate("document.querySelector('details').open").await, true);
    // The token is in no URL: not in the browser's, not in what was asked for.
    let href = tab.evaluate("location.href").await;
    assert_eq!(href, site.url().as_str());
    let asked = site.asked.lock().unwrap().clone();
    assert!(
        asked.len() > 3
            && asked.iter().all(|url| ["/", "/api/v1/overview"].contains(&url.as_str())),
        "{asked:?}"
    );
    // A reload keeps it in this tab; forgetting it hides everything.
    tab.reload().await;
    tab.wait("document.body.innerText.includes('session-tasks')").await;
    tab.evaluate("document.getElementById('forget').click()").await;
    tab.wait("document.querySelector('section[data-id=locked]') !== null").await;
    assert!(!tab.text().await.contains("session-tasks"));
    assert_eq!(tab.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_goes_away_is_said_and_found_again() {
    let app = busy(Arc::new(Mutex::new(5))).await.router::<()>();
    let site = Site::serve(app).await;
    // The server stays; only the way to it is cut.
    let proxy = FaultProxy::start(site.address).await.unwrap();
    let mut browser = Chromium::start().await;
    let mut tab = browser.open(&format!("http://{}/", proxy.address())).await;
    tab.wait("document.querySelector('section') !== null").await;
    sign_in(&mut tab, TOKEN).await;
    tab.wait("document.body.innerText.includes('session-tasks')").await;
    proxy.refuse().await.unwrap();
    proxy.cut().await.unwrap();
    tab.wait("document.getElementById('banner').textContent.includes('cannot be seen')").await;
    let text = tab.text().await;
    assert!(text.contains("Below is what was known") && text.contains("session-tasks"), "{text}");
    tab.forgive("net::ERR");
    looks_well(&mut tab, "gone").await;
    tab.size(360, 740, true).await;
    looks_well(&mut tab, "gone-narrow-dark").await;
    proxy.heal().await.unwrap();
    tab.wait("document.getElementById('banner').hidden").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_works_under_a_prefix() {
    let api = busy(Arc::new(Mutex::new(5))).await;
    let site = Site::serve(Router::new().nest("/ops", api.router())).await;
    let mut browser = Chromium::start().await;
    let mut tab = browser.open(&format!("{}ops", site.url())).await;
    tab.wait("document.querySelector('section[data-id=locked]') !== null").await;
    sign_in(&mut tab, TOKEN).await;
    tab.wait("document.body.innerText.includes('session-tasks')").await;
    let asked = site.asked.lock().unwrap().clone();
    assert!(
        asked.iter().all(|url| ["/ops", "/ops/api/v1/overview"].contains(&url.as_str())),
        "{asked:?}"
    );
    assert_eq!(tab.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_with_nothing_to_show_says_so() {
    let site = Site::serve(Api::builder().without_tokens().build().unwrap().router()).await;
    let mut browser = Chromium::start().await;
    let mut tab = browser.open(&site.url()).await;
    tab.wait("document.body.innerText.includes('Nothing is registered')").await;
    looks_well(&mut tab, "empty").await;
    tab.size(360, 740, true).await;
    looks_well(&mut tab, "empty-narrow-dark").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyboard_and_a_reader_find_their_way() {
    let depth = Arc::new(Mutex::new(100));
    let site = Site::serve(busy(Arc::clone(&depth)).await.router()).await;
    let mut browser = Chromium::start().await;
    let mut tab = browser.open(&site.url()).await;
    tab.wait("document.querySelector('section') !== null").await;
    sign_in(&mut tab, TOKEN).await;
    tab.wait("document.body.innerText.includes('session-tasks')").await;
    // Every section has a name, and so has every field.
    let named = "[...document.querySelectorAll('section')].every((it) => \
        document.getElementById(it.getAttribute('aria-labelledby')).textContent.length > 3)";
    assert_eq!(tab.evaluate(named).await, true);
    assert_eq!(tab.evaluate("document.querySelector('input').labels.length").await, 1);
    // Tables are tables, also where they are shown as lists.
    for (width, dark) in [(1440, false), (360, true)] {
        tab.size(width, 900, dark).await;
        let roles = tab.roles().await;
        let count = |role: &str| roles.get(role).copied().unwrap_or(0);
        assert!(
            count("table") >= 7 && count("row") > 20 && count("cell") > 80,
            "{width}: {roles:?}"
        );
        assert!(count("region") >= 10 && count("status") == 1, "{width}: {roles:?}");
    }
    // By keys alone: from the field over the buttons to what needs attention, and by one of them to its section.
    tab.evaluate("document.getElementById('token').focus()").await;
    let focused = "document.activeElement.getAttribute('href') || document.activeElement.id || document.activeElement.tagName";
    let mut way = Vec::new();
    for _ in 0..4 {
        tab.press("Tab", 9).await;
        way.push(tab.evaluate(focused).await.as_str().unwrap().to_owned());
    }
    assert_eq!(way[1..], ["forget", "#health", "#table-nodes"], "{way:?}");
    // What has the focus keeps it when the page is made anew.
    *depth.lock().unwrap() = 555;
    tab.wait("document.body.innerText.includes('555')").await;
    assert_eq!(tab.evaluate(focused).await, "#table-nodes");
    tab.evaluate("document.activeElement.click()").await;
    tab.wait("document.getElementById('table-nodes').getBoundingClientRect().top < innerHeight")
        .await;
    tab.evaluate("[...document.querySelectorAll('summary')].at(-1).focus()").await;
    *depth.lock().unwrap() = 666;
    tab.wait("document.body.innerText.includes('666')").await;
    let fold = tab.evaluate("document.activeElement.parentElement.dataset.id").await;
    assert_eq!(fold, "decisions-session-workers");
    assert_eq!(tab.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_is_seen_on_the_page_up_and_down() {
    let (queue, books) = (workers::queue().await, workers::books());
    let pool = workers::pool(&queue, &books, Duration::from_millis(40));
    let scaler = workers::scaler(&queue, &pool);
    let api = Api::builder().token("ada", TOKEN).scaler(scaler.clone());
    let shown = queue.clone();
    let api = api.show(move || {
        let queue = shown.clone();
        async move {
            let depth = queue.depth().await?;
            Ok::<_, resonant_queue::Error>(vec![rows::Queue::of(
                queue.name(),
                &depth,
                &queue.findings(),
            )])
        }
    });
    let site = Site::serve(api.build().unwrap().router()).await;
    let mut browser = Chromium::start().await;
    let mut tab = browser.open(&site.url()).await;
    tab.wait("document.querySelector('section') !== null").await;
    sign_in(&mut tab, TOKEN).await;
    let workers = |count: u32| {
        format!(
            "[...document.querySelectorAll('dd')].some((it) => it.textContent === '{count}' && it.previousSibling.textContent === 'current')"
        )
    };
    scaler.start().unwrap();
    tab.wait(&workers(1)).await;
    // Until it is seen: work comes as long as it takes.
    let feed = tokio::spawn({
        let queue = queue.clone();
        async move {
            let mut next = 0;
            loop {
                if queue.depth().await.unwrap().unfinished() < 400 {
                    queue.publish_many(next..next + 400).await.unwrap();
                    next += 400;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    tab.wait(&workers(8)).await;
    tab.wait("document.body.innerText.includes('more than the maximum were wanted')").await;
    looks_well(&mut tab, "scaled-up").await;
    feed.abort();
    tab.wait(&workers(1)).await;
    tab.wait("document.body.innerText.includes('Nothing needs attention')").await;
    for details in ["changes-scaled-workers", "decisions-scaled-workers"] {
        let open = format!(
            "[...document.querySelectorAll('details')].find((it) => it.dataset.id === '{details}').open = true"
        );
        tab.evaluate(&open).await;
    }
    tab.wait("document.body.innerText.includes('all metrics are below their targets')").await;
    tab.size(360, 740, false).await;
    looks_well(&mut tab, "scaled-down-narrow").await;
    scaler.stop().await;
    pool.close().await;
}
