//! An autoscaler in your process: the Kubernetes HPA rules and AWS target tracking as a pure core, with the reason for every
//! decision.
//!
//! # Quick start
//!
//! ```
//! use resonant_scale::{HpaConfig, MetricSpec, Autoscaler, WorkerPool};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let workers = WorkerPool::new(
//!     async || Ok::<_, std::io::Error>("a worker"),              // starts one
//!     async |_worker| Ok::<_, std::io::Error>(()),               // lets one finish
//! );
//! let scaler = Autoscaler::builder("workers")
//!     .policy(HpaConfig::new(2, 50).metric(MetricSpec::external_average("queue_depth", 10.0)))
//!     .measure("queue_depth", async || Ok::<_, std::io::Error>(42.0))
//!     .target(workers.clone())
//!     .build()?;
//!
//! scaler.evaluate().await;                                       // none are fewer than the fewest: two start
//! let decision = scaler.evaluate().await;                        // scaler.start()? goes on every 15 s
//! assert_eq!((decision.from, decision.to, workers.running()), (2, 4, 4));
//! println!("{decision}");   // 2 to 4: the rate of scaling up; queue_depth is 21 of 10; wanted 5
//! # Ok(()) }
//! ```
//!
//! # Policies
//!
//! | policy | as | for |
//! |---|---|---|
//! | [`HpaConfig`] | Kubernetes' HorizontalPodAutoscaler | several metrics, windows and rates |
//! | [`TrackingConfig`] | AWS target tracking | one metric, two cooldowns |
//!
//! [`guide`] holds the three of the scaling guide. Their cores, [`Hpa`] and [`TargetTracking`], are pure: they take what is
//! known and the time, and return a [`Decision`].
//!
//! # Sources and targets
//!
//! A metric comes from a closure ([`AutoscalerBuilder::measure`]), from the recorder of this process
//! ([`source::PrometheusText`]), from a Prometheus server (`source::PrometheusQuery`, feature `prometheus`), or from a
//! [`MetricSource`] of yours. What is scaled is a [`WorkerPool`] in this process, a Deployment or StatefulSet (`Kubernetes`,
//! feature `kubernetes`), or a [`ScaleTarget`] of yours.
//!
//! # Failovers
//!
//! Tell it of a failover by a closure or a channel ([`AutoscalerBuilder::forbid_scale_in_while`]): nothing is taken away meanwhile,
//! and the quiet is no evidence afterwards. Those who were not served will all come back at once; whoever publishes the new
//! primary can make room for them before: `scaler.scale(ScaleRequest::to(30).force().reason("a failover ends")).await?`.
//!
//! # What it does not do
//!
//! - It does not elect a leader: where several processes scale one target, let one of them run it.
//! - It makes no forecast and knows no price.
//!
//! # Guarantees
//!
//! - **The same numbers as Kubernetes** from the same inputs, floating point included.
//! - **Nothing is taken away for want of data**, nor while [a failover](AutoscalerBuilder::forbid_scale_in_while) is under way.
//! - **A restart makes no jump**: what runs counts as recommended.
//! - **A person's change counts**: it is held to the bounds, remembered by the rates, and can be
//!   [held](ScaleRequest::hold_for) against the loop.
//! - **One change at a time**, one warning per outage of a metric or target, and no secrets in messages.
//! - **A panic in your code costs its round**: of a metric, of the target or of a signal; the loop goes on.
//!
//! # Cancellation
//!
//! A dropped [`Autoscaler::evaluate`] or [`Autoscaler::scale`] may have changed the target. The next round reads it, and counts the
//! change if it was made. When the last [`Autoscaler`] is dropped its loop ends; the target stays as it is.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `kubernetes` | no | `Kubernetes`: Deployments and StatefulSets by their scale subresource, over kube |
//! | `prometheus` | no | `source::PrometheusQuery`, over hyper |
//! | `testing` | no | `testing`: doubles of a target and a metric, and the suite every target must pass |

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod decision;
mod error;
mod explain;
pub mod guide;
mod hpa;
mod policy;
mod scaler;
pub mod source;
mod target;
#[cfg(feature = "testing")]
pub mod testing;
mod tracking;

pub use self::decision::{Condition, ConditionKind, Decision, Direction, MetricState, Reason};
pub use self::error::{Error, ErrorKind, Result};
pub use self::explain::{Allowance, Explanation, Step};
pub use self::hpa::{
    Behavior, Hpa, HpaConfig, Instance, MetricKind, MetricSpec, Observed, Phase, PolicyUnit,
    Reading, Sample, Scale, ScalingPolicy, ScalingRules, Select, Target,
};
pub use self::policy::Policy;
pub use self::scaler::{
    Autoscaler, AutoscalerBuilder, AutoscalerConfig, AutoscalerStatus, Change, Cooldowns, Decided,
    LastChange, PauseRequest, PausedBy, Plan, Recommendation, Replicas, ScaleRequest,
};
pub use self::source::MetricSource;
#[cfg(feature = "kubernetes")]
pub use self::target::{Kubernetes, KubernetesBuilder};
pub use self::target::{ScaleTarget, TargetState, WorkerPool};
pub use self::tracking::{TargetTracking, TrackingConfig};
