//! DistributedCache: typed namespaces, one load per missing key, tags, answers that outlive an outage.
//!
//! `cargo run --example cache`

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use resonant_cache::{DistributedCache, Loaded};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    id: u32,
    name: String,
}

/// The slow thing behind the cache.
async fn load(loads: Arc<AtomicU32>, id: u32) -> Result<User, std::io::Error> {
    loads.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(User { id, name: format!("user {id}") })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cache = DistributedCache::memory(64 << 20);
    let users = cache
        .namespace_builder::<User>("user")
        .configure(|config| config.ttl = Some(Duration::from_secs(300)))
        .open()?;
    let loads = Arc::new(AtomicU32::new(0));

    // A hundred callers miss at the same moment: one of them loads, all get the answer.
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let (users, loads) = (users.clone(), Arc::clone(&loads));
            tokio::spawn(async move { users.get_or_load("7", move || load(loads, 7)).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await??.name, "user 7");
    }
    println!("100 callers, {} load", loads.load(Ordering::Relaxed));
    assert_eq!(loads.load(Ordering::Relaxed), 1);

    // A load can say how long its value is good for and what it belongs to.
    let loading = Arc::clone(&loads);
    users
        .get_or_load_with("8", move || async move {
            let user = load(loading, 8).await?;
            Ok::<_, std::io::Error>(Loaded::new(user).ttl(Duration::from_secs(60)).tag("org_1"))
        })
        .await?;
    users.invalidate_tag("org_1").await?;
    assert!(users.get("8").await?.is_none());

    // What does not exist is remembered, too.
    let nobody = users
        .get_or_load_with("9", || async { Ok::<_, std::io::Error>(Loaded::<User>::missing()) })
        .await?;
    assert!(nobody.value.is_none());

    users.delete("7").await?;
    println!("{:?}", cache.usage());
    cache.close().await;
    Ok(())
}
