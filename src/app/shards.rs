//! Whether the shards answer.
//!
//! One shard holds a part of the data. While it is away the others are served: that is a service that is degraded, and taking
//! every instance out of rotation would make an outage of it.

use std::time::Duration;

use futures::future::join_all;
use resonant_db::{Error, ErrorKind, Result, ShardedDatabase};
use resonant_health::Check;
use tokio::time::timeout;

/// The checks: `sharded_database` fails only where no shard answers, `sharded_database.shards` warns of each that does not.
pub(super) fn checks(sharded: &ShardedDatabase, limit: Duration) -> [Check; 2] {
    // A shard that hangs must not keep the answers of the others.
    let limit = limit * 3 / 4;
    let (any, all) = (sharded.clone(), sharded.clone());
    let any = move || {
        let sharded = any.clone();
        async move {
            let answers = ask(&sharded, limit).await;
            match answers.iter().any(Result::is_ok) {
                true => Ok(()),
                false => answers.into_iter().collect(),
            }
        }
    };
    let all = move || {
        let sharded = all.clone();
        async move { ask(&sharded, limit).await.into_iter().collect::<Result<()>>() }
    };
    [Check::new("sharded_database", any), Check::new("sharded_database.shards", all).degrading()]
}

async fn ask(sharded: &ShardedDatabase, limit: Duration) -> Vec<Result<()>> {
    let asked = sharded.shards().map(|(name, shard)| async move {
        timeout(limit, shard.ping()).await.unwrap_or_else(|_| {
            let message = format!("{name} gives no sign of life within {limit:?}");
            Err(Error::new(ErrorKind::TimedOut, "ping", message))
        })
    });
    join_all(asked).await
}
