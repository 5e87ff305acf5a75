//! The HTTP API and the status page, as a router for axum.
//!
//! ```
//! use axum::Router;
//! use resonant_sdk::health::HealthChecker;
//! use resonant_sdk::http::{Api, rows};
//! use resonant_sdk::scale::{Autoscaler, WorkerPool, guide};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let workers = WorkerPool::new(async || Ok::<_, std::io::Error>(()), async |()| Ok::<_, std::io::Error>(()));
//! let health = HealthChecker::new().check("database", async || Ok::<_, std::io::Error>(()));
//! let scaler = Autoscaler::builder("session-workers")
//!     .policy(guide::workers())
//!     .measure("queue_depth", async || Ok::<_, std::io::Error>(12.0))
//!     .target(workers)
//!     .build()?;
//! let decision = scaler.evaluate().await;                 // one round; scaler.start()? goes on every 15 s
//! assert_eq!((decision.from, decision.to), (0, 2));       // none are fewer than the fewest
//! let api = Api::builder()
//!     .token("ada", "a long secret of ada's")             // who may look closely and scale
//!     .health(health)
//!     .scaler(scaler)
//!     .metrics(|| String::from("# what the recorder renders\n"))
//!     .show(async || {
//!         let tasks = rows::Queue { name: "session-tasks".into(), depth: Some(12), ..Default::default() };
//!         Ok::<_, std::io::Error>(vec![tasks])
//!     })
//!     .build()?;
//! let app: Router = Router::new().merge(api.router());   // beside the service's own routes
//! # drop(app);
//! # Ok(()) }
//! ```
//!
//! | route | what | who |
//! |---|---|---|
//! | `GET /` | the status page | everybody; details after the token was typed in |
//! | `GET /health`, `/health/live`, `/ready`, `/startup`, `/checks/{name}`, and the same under `/api/v1` | the health checker's answers | everybody |
//! | `GET /api/v1/metrics` | the recorder's text | everybody, or [who has a token](ApiBuilder::private_metrics) |
//! | `GET /api/v1/overview` | what the page shows | everybody; details with a token |
//! | `GET /api/v1/scaling/status` | every scaler | who has a token |
//! | `GET /api/v1/scaling/history`, `/explain` | what was decided, and how it came about | who has a token |
//! | `POST /api/v1/scaling/scale` | a change by hand | who has a token |
//! | `POST /api/v1/scaling/pause`, `/resume` | the loop waits, or goes on | who has a token |
//! | `GET /api/v1/openapi.json` | this, for machines | everybody |
//!
//! Errors are `application/problem+json`. The formats are in `docs/formats/http.md`. Requests of the service's own routes are
//! counted by [`count_requests`](crate::telemetry::count_requests).
//!
//! # What it promises
//!
//! - Without a token nothing is changed, and no name, number or reason is shown but on `/health` and `/api/v1/metrics`.
//! - A token is compared in a time that does not depend on it. It is never part of a URL, an answer or a log.
//! - A change asked for with an `Idempotency-Key` is made once, whatever the client repeats, also if it went away meanwhile: in
//!   this process, until it ends, and as long as the key is among the [last remembered](ApiConfig::max_keys).
//! - Bodies, rates, keys remembered and rows shown are bounded.
//! - The page loads nothing from elsewhere, and nothing it shows is ever taken for markup.

mod auth;
mod builder;
mod limit;
mod openapi;
mod overview;
mod page;
mod problem;
mod replay;
mod routes;
pub mod rows;
mod scaling;

pub use self::builder::{Api, ApiBuilder, ApiConfig};
