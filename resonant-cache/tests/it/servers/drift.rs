//! Random changes by several processes at once: once it is quiet, nobody holds anything old.

use std::time::Duration;

use resonant_cache::{DistributedCache, Loaded, Namespace, Result, SetOptions};
use resonant_testkit::{FaultProxy, Redis};
use tokio::time::Instant;

use super::fleet::{fleet, own_config};
use super::{cache, config, rounds, started};

/// Random numbers, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = std::env::var("RESONANT_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(rand::random);
        println!("seed {seed}");
        Self(seed)
    }

    /// SplitMix64.
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Random steps of three tasks for each process, all at once: of every kind at first, and then of single keys only, so that no
    /// tag and no clear sweeps away at last what should not have been held.
    async fn storm(&mut self, caches: &[DistributedCache], keys: u64, steps: usize) -> usize {
        self.gust(caches, keys, steps, true).await + self.gust(caches, keys, steps, false).await
    }

    async fn gust(
        &mut self,
        caches: &[DistributedCache],
        keys: u64,
        steps: usize,
        sweeps: bool,
    ) -> usize {
        let scripts: Vec<Vec<u64>> =
            (0..caches.len() * 3).map(|_| (0..steps).map(|_| self.roll()).collect()).collect();
        let steps = scripts.iter().map(Vec::len).sum();
        let tasks: Vec<_> = scripts
            .into_iter()
            .enumerate()
            .map(|(n, script)| {
                let users = caches[n % caches.len()].namespace::<u64>("n");
                tokio::spawn(async move { play(&users, keys, script, sweeps).await })
            })
            .collect();
        for task in tasks {
            assert!(task.await.is_ok_and(|played| played.is_ok()));
        }
        steps
    }
}

/// Random changes by three processes; whenever it has been quiet for 200 ms, all of them hold what the store holds. As many steps
/// as the long form of the goal has are made with `RESONANT_ROUNDS=93`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_moment_of_quiet_nobody_holds_anything_old() -> Result<()> {
    let config = own_config().await;
    let caches = fleet(&config, 3).await;
    let (mut dice, mut steps) = (Dice::new(), 0);
    let looks = rounds(15);
    for round in 0..looks {
        steps += dice.storm(&caches, 8, 40).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let witness = cache(config.clone()).await.namespace::<u64>("n");
        for key in 0..8 {
            let truth = witness.get(&key.to_string()).await?;
            for cache in &caches {
                let held = cache.namespace::<u64>("n").get(&key.to_string()).await?;
                assert_eq!(held, truth, "round {round}, key {key}");
            }
        }
    }
    println!(
        "FIGURE {steps} random steps of 3 processes, {looks} looks at 8 keys: nothing old was held"
    );
    Ok(())
}

/// The same of four processes whose links are slow, each as slow as it likes, while the server is flushed now and then: answers
/// and announcements overtake each other. What is held for good is what the store holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_slow_links_and_flushes_nobody_is_left_with_anything_old() -> Result<()> {
    let redis = started(Redis::start().await);
    let mut caches = Vec::new();
    let mut proxies = Vec::new();
    for _ in 0..4 {
        let proxy = started(FaultProxy::start(redis.address()).await);
        started(proxy.jitter(Duration::from_millis(10)).await);
        let config = config(vec![redis.url_through(&proxy)], false);
        caches.push(cache(config).await);
        proxies.push(proxy);
    }
    let (mut dice, mut steps) = (Dice::new(), 0);
    let witness_config = config(vec![redis.url()], false);
    let looks = rounds(10);
    for round in 0..looks {
        let flush = Duration::from_millis(dice.roll() % 100);
        let flushing = async {
            tokio::time::sleep(flush).await;
            started(redis.command(["FLUSHALL"]).await);
        };
        let (made, ()) = tokio::join!(dice.gust(&caches, 4, 20, true), flushing);
        steps += made + dice.gust(&caches, 4, 40, false).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let witness = cache(witness_config.clone()).await.namespace::<u64>("n");
        for key in (0..4).map(|key| key.to_string()) {
            let truth = witness.get(&key).await?;
            for cache in &caches {
                let (users, begun) = (cache.namespace::<u64>("n"), Instant::now());
                // What is old heals by nothing but a word that was still on its way.
                while users.get(&key).await? != truth {
                    assert!(begun.elapsed() < super::SOON, "round {round}, key {key}: it is old");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
    println!(
        "FIGURE {steps} random steps of 4 processes over links of up to 10 ms each way, {looks} flushes: nothing old was left"
    );
    Ok(())
}

async fn play(users: &Namespace<u64>, keys: u64, script: Vec<u64>, sweeps: bool) -> Result<()> {
    for choice in script {
        let (key, value) = ((choice >> 8) % keys, choice >> 16);
        let (key, tag) = (key.to_string(), if value % 2 == 0 { "even" } else { "odd" });
        match choice % 32 {
            0..=2 => drop(users.set_with(&key, &value, SetOptions::new().tag(tag)).await?),
            3 | 4 => drop(users.delete(&key).await?),
            5 if sweeps => users.invalidate_tag(tag).await?,
            6 if sweeps && value % 4 == 0 => users.clear().await?,
            7..=12 => {
                let load = async move || Ok::<_, std::io::Error>(Loaded::new(value).tag(tag));
                users.get_or_load_with(&key, load).await?;
            }
            _ => drop(users.get(&key).await?),
        }
    }
    Ok(())
}
