//! What the status page shows of the parts.

use crate::http::ApiBuilder;
#[cfg(any(feature = "db", feature = "cache", feature = "queue", feature = "batch"))]
use crate::http::rows;

use super::resonant::Resonant;

impl Resonant {
    #[allow(unused_mut, clippy::let_and_return, reason = "a build without parts has no tables")]
    pub(super) fn tables(&self, mut api: ApiBuilder) -> ApiBuilder {
        #[cfg(feature = "db")]
        if let Some(database) = self.inner.database.clone() {
            let of = database.clone();
            api = api.show(move || nodes(&of)).show(move || pools(&database));
        }
        #[cfg(feature = "cache")]
        if let Some(cache) = self.inner.cache.clone() {
            api = api.show(move || {
                let usage = cache.usage();
                ready(vec![rows::CacheTier {
                    name: "in this process".into(),
                    entries: Some(usage.entries as u64),
                    bytes: Some(usage.bytes),
                    ..Default::default()
                }])
            });
        }
        #[cfg(feature = "queue")]
        if !self.settings().queues.is_empty() {
            let inner = std::sync::Arc::downgrade(&self.inner);
            api = api.show(move || {
                let open = inner.upgrade().map(|inner| inner.queues.all()).unwrap_or_default();
                queues(open)
            });
        }
        #[cfg(feature = "batch")]
        if !self.settings().batches.is_empty() {
            let inner = std::sync::Arc::downgrade(&self.inner);
            api = api.show(move || {
                let Some(inner) = inner.upgrade() else { return ready(Vec::new()) };
                let batches = super::life::lock(&inner.batches);
                let row =
                    |(name, batch): (&String, &std::sync::Arc<dyn super::batches::OpenBatch>)| {
                        let stats = batch.stats();
                        rows::Batch {
                            name: name.clone(),
                            queued: Some(stats.queued as u64),
                            in_flight: Some(stats.in_flight as u64),
                            ..Default::default()
                        }
                    };
                ready(batches.iter().map(row).collect())
            });
        }
        api
    }
}

type Ready<T> = std::future::Ready<Result<Vec<T>, std::convert::Infallible>>;

fn ready<T>(rows: Vec<T>) -> Ready<T> {
    std::future::ready(Ok(rows))
}

#[cfg(feature = "db")]
fn nodes(database: &resonant_db::Database) -> Ready<rows::Node> {
    use resonant_common::join::Severity;
    let row = |node: resonant_db::NodeStatus| rows::Node {
        state: if node.ejected || node.held { Severity::Fail } else { Severity::Ok },
        role: Some(format!("{:?}", node.role).to_lowercase()),
        lag_seconds: node.staleness.map(|behind| behind.as_secs_f64()),
        name: node.name,
        ..Default::default()
    };
    ready(database.status().nodes.into_iter().map(row).collect())
}

#[cfg(feature = "db")]
fn pools(database: &resonant_db::Database) -> Ready<rows::Pool> {
    use resonant_common::join::Severity;
    let row = |node: resonant_db::NodeStatus| rows::Pool {
        state: if node.pool.outage.is_some() { Severity::Fail } else { Severity::Ok },
        in_use: Some(u64::from(node.pool.busy)),
        idle: Some(u64::from(node.pool.idle)),
        max: Some(u64::from(node.pool.max_size)),
        waiting: Some(u64::from(node.pool.waiting)),
        name: node.name,
    };
    ready(database.status().nodes.into_iter().map(row).collect())
}

#[cfg(feature = "queue")]
async fn queues(
    open: Vec<(String, std::sync::Arc<dyn super::queues::OpenQueue>)>,
) -> resonant_queue::Result<Vec<rows::Queue>> {
    let mut rows = Vec::with_capacity(open.len());
    for (name, queue) in open {
        let depth = queue.depth().await?;
        rows.push(rows::Queue {
            name,
            depth: Some(depth.unfinished()),
            in_flight: Some(depth.in_flight),
            oldest_seconds: depth.oldest_age.map(|age| age.as_secs_f64()),
            parked_keys: Some(depth.parked_keys),
            dead: Some(depth.dead),
            ..Default::default()
        });
    }
    Ok(rows)
}
