//! Health checks that run in the background and are answered from a snapshot, so a hung dependency never hangs a probe.
//!
//! # Quick start
//!
//! ```
//! use resonant_health::{Check, HealthChecker, Status, Watchdog};
//! # #[derive(Clone)] struct Db;
//! # impl Db {
//! #     fn ping(&self) -> impl Future<Output = Result<(), std::io::Error>> + Send + use<> { std::future::ready(Ok(())) }
//! #     fn findings(&self) -> Vec<resonant_health::Finding> { vec![] }
//! # }
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (db, cache) = (Db, Db);
//! let (heartbeat, consumer) = Watchdog::heartbeat("consumer", std::time::Duration::from_secs(30));
//! let health = HealthChecker::new()
//!     .check("database", { let db = db.clone(); move || db.ping() })          // required
//!     .with(Check::new("cache", move || cache.ping()).degrading())            // works without it
//!     .findings("pool", move || db.findings())                                // what a primitive says of itself
//!     .live(consumer);                                                        // what a restart would cure
//!
//! let report = health.run_all().await;                                        // now, all of them, once
//! assert_eq!(report.status(), Status::Pass);
//! println!("{}", serde_json::to_string(&report)?);
//!
//! health.start()?;                                                            // and from here on in the background
//! // axum: app.merge(health.router()) with the feature `axum`; anything else: health.answer(endpoint, &request)
//! heartbeat.beat();
//! # Ok(()) }
//! ```
//!
//! # Probes
//!
//! | probe | path | 503 when | knows dependencies |
//! |---|---|---|---|
//! | live | `/health/live` | a live [`Watchdog`] fails | never: it does not compile |
//! | ready | `/health/ready` | draining, starting, a watchdog or a [required](Criticality::Required) check fails or is unknown | required ones |
//! | startup | `/health/startup` | it has not opened yet; it opens once | required ones, once |
//! | the whole | `/health` | as ready | shows all |
//!
//! A failed [degrading](Criticality::Degrading) check turns ready to *warn*, which is still 200: the service goes on with
//! less. Use it for what all instances share; taking all of them out of a balancer does not bring a cache back.
//!
//! # From results to states
//!
//! One bad result is no outage. A state gets worse after `fall` (3) worse results in a row and better after `rise` (2),
//! the first result counts at once, and a changed state is kept for `dwell` (5 s). After a surprise a check runs again
//! within a second; while it stays down, less and less often, but at least once per interval. A state nobody has
//! confirmed for three intervals is unknown. All of it is set in [`HealthConfig`] and per [`Check`].
//!
//! # What it does not do
//!
//! - It does not know the fleet: whether all instances lost the same dependency is not asked.
//! - It does not restart, promote or reconnect anything. It reads state, it never changes it.
//! - It collects no metrics of the process; it only tells its own (`resonant_health_*`).
//!
//! # Guarantees
//!
//! - **A probe never waits for a check.** It reads what is known; no user's code runs in it.
//! - **Timeouts are enforced.** Past its timeout a future is dropped. A function that blocks is left behind on one of
//!   a few threads; no second copy starts while one hangs. Exception: a future that blocks its thread without ever
//!   yielding can only be given up, and on a current-thread runtime it stops everything, as it would anywhere.
//! - **Every name is in every report**, with a class: ok, error, timeout, panic, rejected, cancelled.
//! - **No text from errors or panics in public.** Bodies, metrics, spans and `Debug` hold fixed words and codes, and
//!   the names given in code. The text is in the log, without the passwords of connection strings, and in
//!   [`CheckReport::detail`]; over HTTP only under [`Details::ErrorTexts`].
//! - **One warning per change of state**, none per run.
//!
//! # Cancellation
//!
//! A dropped [`run_all`](HealthChecker::run_all) leaves the run to go on in the background. A dropped
//! [`stop`](HealthChecker::stop) or [`drain`](HealthChecker::drain) has stopped or begun to drain all the same. When the
//! last [`HealthChecker`] handle is dropped, the schedule and every probe in flight end; only threads that block cannot
//! be ended, and they do not keep the process alive.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `axum` | no | `HealthChecker::router` and `IntoResponse for Report`; pulls in axum without its defaults |

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod board;
mod check;
mod checker;
mod code;
mod config;
mod core;
mod detail;
mod driver;
mod entry;
mod error;
mod gate;
mod lock;
mod meter;
mod register;
mod report;
#[cfg(feature = "axum")]
mod router;
mod runs;
mod track;
mod verdict;
mod watchdog;
mod wire;
mod work;

pub use resonant_common::join::{Finding, Severity};

pub use self::check::{Check, Criticality};
pub use self::checker::HealthChecker;
pub use self::config::HealthConfig;
pub use self::error::{Error, ErrorKind, Result};
pub use self::gate::Gate;
pub use self::report::{CheckKind, CheckReport, Outcome, Report, Status, Transition};
pub use self::verdict::Probe;
pub use self::watchdog::{Flag, Heartbeat, Watchdog};
pub use self::wire::{Details, Endpoint};
