//! The manager over regions of the test's own, under a paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use resonant_ha::observe::{FnSource, Observer, Sighting};
use resonant_ha::voter::{MemoryVoter, Quorum, Vote, Voter};
use resonant_ha::{
    CommitsWaitFor, Error, ErrorKind, Event, EventKind, FailoverBuilder, FailoverConfig,
    FailoverManager, Frozen, Hook, Node, Observation, Pledge, Proof, Reach, Reason, RegionBackend,
    RegionTarget, Result, Role,
};
use tokio::time::{sleep, timeout};

/// A service that is up or down, and counts its promotions.
#[derive(Debug, Default)]
struct State {
    panics: AtomicBool,
    down: AtomicBool,
    /// How long it takes to be frozen, in milliseconds.
    freezes_for: AtomicU32,
    promotions: AtomicU32,
}

#[derive(Debug, Default, Clone)]
struct Fake(Arc<State>);

impl std::ops::Deref for Fake {
    type Target = State;
    fn deref(&self) -> &State {
        &self.0
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "fake", "down")
}

#[async_trait]
impl RegionBackend for Fake {
    fn url(&self) -> String {
        "http://fake".to_owned()
    }
    fn can_fence(&self) -> bool {
        true
    }
    async fn probe(&self, _: Duration) -> Result<Observation> {
        assert!(!self.panics.load(Ordering::Relaxed), "a probe that panics");
        if self.down.load(Ordering::Relaxed) {
            return Err(gone());
        }
        Ok(Observation {
            role: Role::Service,
            sick: None,
            read_only: false,
            system: 0,
            reach: Reach::default(),
            pledge: Pledge::default(),
            started: 0,
            hears_primary: false,
            commits: CommitsWaitFor::nobody(),
        })
    }
    async fn fence(&self, _: &Pledge) -> Result<Proof> {
        Ok(Proof::Stopped { region: "fake".into(), by: "the test".into() })
    }
    async fn freeze(&self, _: &Pledge) -> Result<Frozen> {
        if self.down.load(Ordering::Relaxed) || self.panics.load(Ordering::Relaxed) {
            return Err(gone());
        }
        sleep(Duration::from_millis(self.freezes_for.load(Ordering::Relaxed).into())).await;
        Ok(Frozen { role: Role::Service, sick: None, system: 0, reach: Reach::default() })
    }
    async fn demote(&self, _: &Pledge, _: &dyn RegionBackend) -> Result<(Reach, Option<Proof>)> {
        Ok((Reach::default(), None))
    }
    async fn promote(&self, _: &Pledge) -> Result<u32> {
        self.promotions.fetch_add(1, Ordering::Relaxed);
        Ok(0)
    }
    async fn repoint(&self, _: &Pledge, _: &RegionTarget) -> Result<()> {
        Ok(())
    }
    async fn confirm(&self, _: &Pledge) -> Result<()> {
        Ok(())
    }
}

fn stage(config: FailoverConfig) -> (FailoverBuilder, [Fake; 3]) {
    let fakes: [Fake; 3] = Default::default();
    let mut builder = FailoverManager::builder()
        .primary_region("a")
        .secondary_regions(["b", "c"])
        .config(config)
        .lease_store(Quorum::of(MemoryVoter::new()));
    for (name, fake) in ["a", "b", "c"].into_iter().zip(&fakes) {
        builder = builder.region(name, fake.clone());
    }
    (builder, fakes)
}

fn acting() -> FailoverConfig {
    FailoverConfig { allow_promotion: true, ..FailoverConfig::default() }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(timeout(Duration::from_secs(3000), waiting).await.is_ok(), "{what}");
}

fn leads(manager: &FailoverManager, region: &str) -> bool {
    manager.status().primary.is_some_and(|primary| primary == region)
}

#[tokio::test(start_paused = true)]
async fn the_guides_settings_fail_over_after_three_probes_and_back_after_five_minutes() {
    let (builder, fakes) = stage(acting());
    let manager = builder.build().unwrap();
    manager.start().await.unwrap();
    assert_eq!(manager.start().await.unwrap_err().kind(), ErrorKind::Closed);
    let mut topologies = manager.subscribe();
    until("the first", || leads(&manager, "a")).await;
    let first = topologies.borrow_and_update().epoch;
    fakes[0].down.store(true, Ordering::Relaxed);
    let lost = tokio::time::Instant::now();
    until("the failover", || leads(&manager, "b")).await;
    let took = lost.elapsed();
    assert!(took > Duration::from_secs(20) && took < manager.status().recovery.total, "{took:?}");
    assert!(topologies.borrow_and_update().epoch > first);
    sleep(Duration::from_secs(600)).await;
    assert!(leads(&manager, "b"), "it went back to a region that is down");
    fakes[0].down.store(false, Ordering::Relaxed);
    let back = tokio::time::Instant::now();
    sleep(Duration::from_secs(299)).await;
    assert!(leads(&manager, "b"), "before its hold");
    // A relapse begins the hold anew.
    fakes[0].down.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(15)).await;
    fakes[0].down.store(false, Ordering::Relaxed);
    until("the failback", || leads(&manager, "a")).await;
    assert!(back.elapsed() > Duration::from_secs(605), "{:?}", back.elapsed());
    manager.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_region_may_take_longer_to_be_frozen_than_to_be_probed() {
    let (builder, fakes) = stage(acting());
    let manager = builder.build().unwrap();
    manager.start().await.unwrap();
    until("the first", || leads(&manager, "a")).await;
    for fake in &fakes {
        fake.freezes_for.store(4500, Ordering::Relaxed);
    }
    assert!(manager.config().probe_timeout < Duration::from_millis(4500));
    fakes[0].down.store(true, Ordering::Relaxed);
    until("the failover", || !leads(&manager, "a")).await;
    manager.close().await;
}

#[tokio::test(start_paused = true)]
async fn without_leave_it_stops_at_the_plan() {
    let (builder, fakes) = stage(FailoverConfig::default());
    let manager = builder.build().unwrap();
    manager.start().await.unwrap();
    until("the first", || leads(&manager, "a")).await;
    fakes[0].down.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(300)).await;
    assert!(leads(&manager, "a"));
    assert_eq!(manager.plan().failover.against, [Reason::PromotionNotAllowed]);
    assert_eq!(manager.plan().failover.to.unwrap(), "b");
    let error = manager.switchover("b").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("allow_promotion is off"), "{error}");
    assert!(fakes.iter().all(|fake| fake.promotions.load(Ordering::Relaxed) == 0));
    assert!(manager.drill().await.regions[0].1.is_err());
    manager.close().await;
}

#[tokio::test(start_paused = true)]
async fn pause_holds_back_and_a_dropped_switchover_goes_on() {
    let (builder, fakes) = stage(acting());
    let manager = builder.build().unwrap();
    manager.start().await.unwrap();
    until("the first", || leads(&manager, "a")).await;
    manager.pause("me").await.unwrap();
    fakes[0].down.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(120)).await;
    assert!(leads(&manager, "a"));
    fakes[0].down.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(manager.switchover("c").await.unwrap_err().kind(), ErrorKind::Refused);
    manager.resume().await.unwrap();
    // Given up at each of its awaits in turn; each is finished all the same.
    for (nth, to) in ["c", "b", "c", "b"].into_iter().enumerate() {
        let _ = timeout(Duration::from_micros(nth as u64), manager.switchover(to)).await;
        if nth == 0 {
            // It may have been dropped before it was sent.
            let _ = manager.switchover(to).await;
        }
        until("it goes on", || leads(&manager, to)).await;
    }
    assert!(manager.switchover("a").await.unwrap() > 1);
    manager.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_region_whose_probe_panics_is_probed_again() {
    let (builder, fakes) = stage(acting());
    let manager = builder.build().unwrap();
    manager.start().await.unwrap();
    until("the first", || leads(&manager, "a")).await;
    fakes[0].panics.store(true, Ordering::Relaxed);
    // It counts as down, as any probe that fails.
    until("the failover", || leads(&manager, "b")).await;
    assert_eq!(manager.status().regions[0].why.as_deref(), Some("the probe panicked"));
    fakes[0].panics.store(false, Ordering::Relaxed);
    until("it is well again", || manager.status().regions[0].well).await;
    manager.close().await;
}

#[derive(Debug)]
struct Ear(Arc<AtomicBool>);

#[async_trait]
impl Observer for Ear {
    async fn hears(&self, region: &RegionTarget) -> Result<bool> {
        assert_eq!(region.region, "a");
        Ok(self.0.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct Pager(Arc<AtomicU32>);

#[async_trait]
impl Hook for Pager {
    async fn run(&self, event: &Event) -> Result<()> {
        self.0.fetch_add(
            u32::from(matches!(event.kind, EventKind::Published { .. })),
            Ordering::Relaxed,
        );
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_hears_the_primary_holds_it_back_and_hooks_run() {
    let (heard, pages) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
    let (builder, fakes) = stage(acting());
    let builder = builder.observer(Ear(Arc::clone(&heard))).hook(Pager(Arc::clone(&pages)));
    let manager = builder.build().unwrap();
    manager.start().await.unwrap();
    until("the first", || leads(&manager, "a")).await;
    fakes[0].down.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(120)).await;
    assert!(leads(&manager, "a"));
    assert!(manager.plan().failover.against.contains(&Reason::PrimaryHeard));
    heard.store(false, Ordering::Relaxed);
    until("the failover", || leads(&manager, "b")).await;
    until("the hook", || pages.load(Ordering::Relaxed) == 2).await;
    manager.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_closure_is_followed_and_its_errors_change_nothing() {
    let place = Arc::new(AtomicU32::new(0));
    let asked = Arc::clone(&place);
    let source = FnSource::new(move || {
        let place = asked.load(Ordering::Relaxed);
        async move {
            let node = |name: &str| Node { name: name.to_owned(), url: format!("x://{name}") };
            let nodes = vec![node("n0"), node("n1")];
            match place {
                9 => Err(std::io::Error::other("down")),
                place => {
                    Ok(Sighting { primary: Some(format!("n{place}")), nodes, generation: None })
                }
            }
        }
    });
    let manager = FailoverManager::builder().observe(source).build().unwrap();
    manager.start().await.unwrap();
    let topologies = manager.subscribe();
    let mut last = 0;
    for (next, primary) in [(0, "n0"), (1, "n1"), (9, "n1"), (0, "n0")] {
        place.store(next, Ordering::Relaxed);
        sleep(Duration::from_secs(3)).await;
        let topology = topologies.borrow().clone();
        assert_eq!(topology.primary.as_deref(), Some(primary));
        assert!(topology.epoch >= last);
        last = topology.epoch;
    }
    assert_eq!(last, 3);
    manager.close().await;
}

/// In the domain of a region.
#[derive(Debug)]
struct Domain(&'static str);

#[async_trait]
impl Voter for Domain {
    async fn cast(&self, _: &str, _: resonant_ha::voter::Ballot) -> Result<Vote> {
        Ok(Vote::default())
    }
    fn domain(&self) -> Option<&str> {
        Some(self.0)
    }
}

#[test]
fn what_breaks_a_law_is_refused_by_its_name() {
    let refused = |builder: FailoverBuilder| builder.build().unwrap_err().to_string();
    let (builder, _) = stage(FailoverConfig { synchronous_standbys: 3, ..acting() });
    assert!(refused(builder).contains("synchronous_standbys must be less"));
    let none = FailoverManager::builder().primary_region("a").allow_promotion(true);
    assert!(refused(none).contains("lease_store"));
    let alone = FailoverManager::builder().primary_region("a").region("a", Fake::default());
    assert!(refused(alone).contains("at least one of secondary_regions"));
    let (builder, _) = stage(acting());
    assert!(refused(builder.region("d", Fake::default())).contains("the region d must be"));
    let (builder, _) = stage(acting());
    assert!(refused(builder.primary_region("b")).contains("named twice"));
    let voters = |domains: [&'static str; 3]| {
        Quorum::new(domains.map(|domain| Arc::new(Domain(domain)) as Arc<dyn Voter>)).unwrap()
    };
    let (builder, _) = stage(acting());
    assert!(
        refused(builder.lease_store(voters(["a", "a", "c"]))).contains("majority of the voters")
    );
    let (builder, _) = stage(acting());
    assert!(builder.lease_store(voters(["a", "b", "c"])).build().is_ok());
    let (builder, _) = stage(acting());
    assert!(refused(builder.lease_store(Quorum::of(Domain("a")))).contains("single voter"));
    let (builder, _) = stage(acting());
    let source = FnSource::new(|| async { Ok::<_, std::io::Error>(Sighting::default()) });
    assert!(refused(builder.observe(source)).contains("two would decide"));
}
