//! The end, in the order in which nothing is lost.
//!
//! Each part is ended after those that give it work: requests make tasks, workers take them and fill batches, batches write.
//! A part that hangs may use half of the time that is left, so that those after it have some, too.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

#[cfg(any(feature = "batch", feature = "queue"))]
use super::life::lock;
use super::resonant::Resonant;

/// How long answers to requests that are cut off may take to be sent.
const TELL: Duration = Duration::from_millis(500);

/// How a service ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// How long it took in all.
    pub took: Duration,
}

/// A step of the end.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Step {
    /// `wait`, `http`, `scaling`, `workers`, `batches`, `publishers`, `failover`, `cache` or `pools`.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// What was not finished when its time was over. Empty: nothing.
    pub left: Vec<String>,
}

impl ShutdownReport {
    /// Whether nothing was left undone.
    pub fn is_clean(&self) -> bool {
        self.left().next().is_none()
    }

    /// What was left, of all steps.
    pub fn left(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().flat_map(|step| step.left.iter().map(String::as_str))
    }
}

/// One line, such as `ended in 5.2 s, nothing left`.
impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended in {:.1} s, ", self.took.as_secs_f64())?;
        let left: Vec<&str> = self.left().collect();
        if left.is_empty() { f.write_str("nothing left") } else { f.write_str(&left.join("; ")) }
    }
}

struct Ending {
    began: Instant,
    deadline: Instant,
    steps: Vec<Step>,
}

impl Ending {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    async fn step(&mut self, name: &'static str, work: impl Future<Output = Vec<String>>) {
        let began = Instant::now();
        let left = work.await;
        self.steps.push(Step { name, took: began.elapsed(), left });
    }
}

impl Resonant {
    /// Ends everything, in this order: not ready; wait for the `drain_delay` of `[health]` (at most a third of `deadline`), so that
    /// balancers notice; requests; scalers; workers; batches; publishers; failover; cache; pools. At `deadline` what still runs is
    /// stopped. Says what was left.
    ///
    /// Messages a worker could not finish stay in their queue and are handed out again. Called again while it runs, it waits its
    /// turn; after that there is nothing more to do.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the service is not ready, and has come as far in the order as it had. Call it again to go on: what it had not
    /// waited for to its end is waited for again.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let began = Instant::now();
        let mut ending = Ending {
            began,
            deadline: resonant_common::duration::after(began, deadline),
            steps: Vec::new(),
        };
        self.health().begin_drain();
        self.inner.life.stop();
        let _turn = self.inner.life.ending.lock().await;
        let wait = self.health().config().drain_delay.min(deadline / 3);
        let serves = self.inner.life.server.lock().await.is_some();
        ending
            .step("wait", async {
                // Where nobody asks there is nobody to notice.
                if serves {
                    sleep(wait).await;
                }
                Vec::new()
            })
            .await;
        let limit = ending.left() / 2;
        ending.step("http", self.end_http(limit)).await;
        #[cfg(feature = "queue")]
        {
            ending.step("scaling", self.end_scalers(ending.left() / 2)).await;
            ending.step("workers", self.end_workers(ending.left() / 2)).await;
        }
        #[cfg(feature = "batch")]
        ending.step("batches", self.end_batches(ending.left() / 2)).await;
        #[cfg(feature = "queue")]
        ending.step("publishers", self.end_queues(ending.left() / 2)).await;
        #[cfg(feature = "ha")]
        ending.step("failover", self.end_failover(ending.left() / 2)).await;
        #[cfg(feature = "cache")]
        ending.step("cache", self.end_cache(ending.left() / 2)).await;
        #[cfg(feature = "db")]
        ending.step("pools", self.end_pools(ending.left())).await;
        // Told to end, it ends, whether it is waited for or not.
        let _ = timeout(ending.left(), self.health().stop()).await;
        ShutdownReport { took: ending.began.elapsed(), steps: ending.steps }
    }

    async fn end_http(&self, limit: Duration) -> Vec<String> {
        // It stays where it is until it has ended, for the next call if this one is dropped.
        let mut server = self.inner.life.server.lock().await;
        let Some(running) = server.as_mut() else { return Vec::new() };
        let end = Instant::now() + limit;
        let mut left = Vec::new();
        running.close.send_replace(true);
        let answered = end - TELL.min(limit / 4);
        if !running.task.is_finished() && timeout_at(answered, &mut running.task).await.is_err() {
            let traffic = &self.inner.life.traffic;
            left.push(match traffic.under_way() {
                0 => "a connection did not end in time".into(),
                requests => format!("{requests} requests were cut off"),
            });
            traffic.cut_off();
            // Whoever waits for them is told so.
            let _ = timeout_at(end, &mut running.task).await;
        }
        // What was upgraded is no request any more, and the service's own to end.
        let _ = timeout_at(end, running.open.wait_for(|open| *open == 0)).await;
        let open = *running.open.borrow();
        if open > 0 && running.task.is_finished() {
            left.push(format!("{open} upgraded connections, such as WebSockets, did not end"));
        }
        *server = None;
        left
    }

    #[cfg(feature = "queue")]
    async fn end_scalers(&self, limit: Duration) -> Vec<String> {
        let scalers = std::mem::take(&mut *lock(&self.inner.life.scalers));
        let stops = scalers.iter().map(resonant_scale::Autoscaler::stop);
        // One whose target hangs is dropped, which ends it.
        let _ = timeout(limit, futures::future::join_all(stops)).await;
        Vec::new()
    }

    #[cfg(feature = "queue")]
    async fn end_workers(&self, limit: Duration) -> Vec<String> {
        let crews = self.inner.queues.crews();
        let losses = || {
            crews
                .iter()
                .map(super::queues::Crew::losses)
                .fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
        };
        let before = losses();
        let closing = futures::future::join_all(crews.iter().map(|crew| crew.pool.close()));
        let mut left = Vec::new();
        if timeout(limit, closing).await.is_err() {
            let still: usize =
                crews.iter().map(|crew| crew.pool.running() + crew.pool.ending()).sum();
            left.push(format!(
                "{still} workers were stopped in the middle; their messages will be handed out again"
            ));
        }
        let after = losses();
        let (abandoned, failed) = (after.0 - before.0, after.1 - before.1);
        if abandoned > 0 {
            left.push(format!(
                "the handlers of {abandoned} partitions took longer than drain_timeout and were stopped; their messages will be handed out again"
            ));
        }
        if failed > 0 {
            left.push(format!("{failed} workers did not end well"));
        }
        left
    }

    #[cfg(feature = "batch")]
    async fn end_batches(&self, limit: Duration) -> Vec<String> {
        let batches: Vec<_> = lock(&self.inner.batches)
            .iter()
            .map(|(name, batch)| (name.clone(), std::sync::Arc::clone(batch)))
            .collect();
        let drains = batches.iter().map(|(name, batch)| async move {
            let report = batch.drain(limit).await;
            let (items, runs) = (report.not_processed, report.interrupted);
            (!report.is_clean()).then(|| {
                format!(
                    "batch {name}: {items} items were not processed, {runs} batches interrupted"
                )
            })
        });
        futures::future::join_all(drains).await.into_iter().flatten().collect()
    }

    #[cfg(feature = "queue")]
    async fn end_queues(&self, limit: Duration) -> Vec<String> {
        let queues = self.inner.queues.all();
        let closes = queues.iter().map(|(name, queue)| async move {
            let closed = timeout(limit, queue.close()).await;
            closed.is_err().then(|| format!("queue {name} did not close in time"))
        });
        futures::future::join_all(closes).await.into_iter().flatten().collect()
    }

    #[cfg(feature = "ha")]
    async fn end_failover(&self, limit: Duration) -> Vec<String> {
        let Some(failover) = &self.inner.failover else { return Vec::new() };
        let closed = timeout(limit, failover.close()).await;
        if closed.is_ok() {
            Vec::new()
        } else {
            vec!["the failover manager did not end in time".into()]
        }
    }

    #[cfg(feature = "cache")]
    async fn end_cache(&self, limit: Duration) -> Vec<String> {
        let Some(cache) = &self.inner.cache else { return Vec::new() };
        let closed = timeout(limit, cache.close()).await;
        if closed.is_ok() { Vec::new() } else { vec!["the cache did not close in time".into()] }
    }

    #[cfg(feature = "db")]
    async fn end_pools(&self, limit: Duration) -> Vec<String> {
        let told = |name: &str, closed: resonant_db::Result<()>| {
            closed.err().map(|error| format!("{name}: {}", error.message()))
        };
        let database = async {
            let Some(database) = &self.inner.database else { return None };
            told("database", database.close(limit).await)
        };
        #[cfg(feature = "sharding")]
        let sharded = async {
            let Some(sharded) = &self.inner.sharded else { return None };
            told("sharded_database", sharded.close(limit).await)
        };
        #[cfg(not(feature = "sharding"))]
        let sharded = std::future::ready(None);
        // At once, for each may need all the time there is.
        let (database, sharded) = tokio::join!(database, sharded);
        database.into_iter().chain(sharded).collect()
    }
}
