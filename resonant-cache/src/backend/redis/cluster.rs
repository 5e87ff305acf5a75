//! Who is who: the servers, which of them has which slot, and keeping that up to date.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::clock::Clock;
use super::driver::{Fault, Reply, SharedSettings};
use super::ear;
use super::hub::Hub;
use super::lag::MAX_LAG;
use super::node::Node;
use super::resp::Command;
use super::slots::{self, Range, SLOTS};
use super::target::{Address, Targets};

/// Between two looks at the slots, at least.
const REST: Duration = Duration::from_millis(100);
/// The same where somebody was redirected to a server that is known, as while slots are moved, and nothing is wrong: the
/// redirection says where to go.
const REST_WHEN_CALM: Duration = Duration::from_millis(500);
/// While something is wrong.
const TROUBLED: Duration = Duration::from_millis(250);
/// While nothing is.
const CALM: Duration = Duration::from_secs(10);
/// Looks at the slots in which the replicas may still be on their way: a server names those only that it has heard of.
const YOUNG: u32 = 20;
/// Between two looks while they are.
const WHILE_YOUNG: Duration = Duration::from_secs(1);
/// The same where replicas are read from: nobody else says that one has come.
const CALM_WITH_REPLICAS: Duration = Duration::from_secs(2);
/// Between two looks at how far replicas are.
const LAG_EVERY: Duration = Duration::from_millis(500);

/// What all parts share.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) targets: Arc<Targets>,
    pub(super) settings: SharedSettings,
    pub(super) command_timeout: Duration,
    /// How old what the process holds may get behind a change.
    pub(super) max_age: Duration,
    pub(super) is_cluster: bool,
    pub(super) read_replicas: bool,
    pub(super) hub: Hub,
    pub(super) clock: Clock,
    pub(super) stop: CancellationToken,
    map: watch::Sender<Known>,
    trouble: Arc<Notify>,
    nodes: Mutex<Nodes>,
    ears: Mutex<HashMap<Address, DropGuard>>,
}

/// Servers, and beside each whether it is read from as a replica.
type Nodes = HashMap<Address, [Option<Arc<Node>>; 2]>;

/// Who has which slot, as far as it is known.
#[derive(Debug, Clone)]
enum Known {
    NotYet,
    Map(Arc<Map>),
    /// Nobody could be asked, or nobody knew.
    Failed(Fault),
}

#[derive(Debug, PartialEq)]
pub(super) struct Map {
    ranges: Vec<Range>,
    /// Per slot the number of its range plus one.
    owners: Vec<u16>,
}

impl Map {
    pub(super) fn new(ranges: Vec<Range>) -> Self {
        let mut owners = vec![0; usize::from(SLOTS)];
        for (index, range) in ranges.iter().enumerate() {
            let number = u16::try_from(index + 1).unwrap_or_default();
            owners[usize::from(range.first)..=usize::from(range.last)].fill(number);
        }
        Self { ranges, owners }
    }

    pub(super) fn range(&self, slot: u16) -> Option<&Range> {
        let number = usize::from(*self.owners.get(usize::from(slot))?);
        self.ranges.get(number.checked_sub(1)?)
    }

    /// Whether each slot has the same primary in both.
    fn has_the_owners_of(&self, other: &Self) -> bool {
        let owner = |map: &Self, slot| map.range(slot).map(|range| range.primary.clone());
        let same = self.owners == other.owners && self.ranges.len() == other.ranges.len();
        let alike = |(one, other): (&Range, &Range)| one.primary == other.primary;
        (same && self.ranges.iter().zip(&other.ranges).all(alike))
            || (0..SLOTS).all(|slot| owner(self, slot) == owner(other, slot))
    }

    pub(super) fn primaries(&self) -> BTreeSet<Address> {
        self.ranges.iter().map(|range| range.primary.clone()).collect()
    }

    /// Pairs of a primary and one of its replicas.
    pub(super) fn replicas(&self) -> BTreeSet<(Address, Address)> {
        let pairs = |range: &Range| {
            let primary = range.primary.clone();
            range
                .replicas
                .iter()
                .map(move |replica| (primary.clone(), replica.clone()))
                .collect::<Vec<_>>()
        };
        self.ranges.iter().flat_map(pairs).collect()
    }
}

impl Cluster {
    pub(super) fn new(
        targets: Arc<Targets>,
        settings: SharedSettings,
        config: &crate::config::CacheConfig,
    ) -> Self {
        let replicas = config.cluster_mode && config.read_from_replicas;
        Self {
            targets,
            settings,
            command_timeout: config.command_timeout,
            max_age: config.unannounced_max_age,
            is_cluster: config.cluster_mode,
            read_replicas: replicas,
            hub: Hub::new(&config.key_prefix, replicas),
            clock: Clock::new(),
            stop: CancellationToken::new(),
            map: watch::Sender::new(Known::NotYet),
            trouble: Arc::default(),
            nodes: Mutex::default(),
            ears: Mutex::default(),
        }
    }

    /// Starts what runs in the background.
    pub(super) fn start(self: &Arc<Self>) {
        if self.is_cluster {
            self.spawn(Arc::clone(self).keep_map());
        } else if let Some((seed, _)) = self.targets.seeds.first() {
            let range =
                Range { first: 0, last: SLOTS - 1, primary: seed.clone(), replicas: Vec::new() };
            self.take_over(Map::new(vec![range]));
        }
        if self.read_replicas {
            self.spawn(Arc::clone(self).keep_lag());
        }
    }

    fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(work).await });
    }

    /// The map, as soon as there is one; or why there is none.
    pub(super) async fn map(&self) -> Result<Arc<Map>, Fault> {
        if let Some(map) = self.known_map() {
            return Ok(map);
        }
        let mut known = self.map.subscribe();
        loop {
            match &*known.borrow_and_update() {
                Known::Map(map) => return Ok(Arc::clone(map)),
                Known::Failed(fault) => return Err(fault.clone()),
                Known::NotYet => {}
            }
            if known.changed().await.is_err() {
                return Err(Fault::Down("the cache is closed".into()));
            }
        }
    }

    /// The map, if there is one.
    pub(super) fn known_map(&self) -> Option<Arc<Map>> {
        match &*self.map.borrow() {
            Known::Map(map) => Some(Arc::clone(map)),
            _ => None,
        }
    }

    /// The server at an address, connected to on first use.
    pub(super) fn node(&self, address: &Address, readonly: bool) -> Arc<Node> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let role = usize::from(readonly);
        if let Some(node) = nodes.get(address).and_then(|roles| roles[role].as_ref()) {
            return Arc::clone(node);
        }
        let targets = Arc::clone(&self.targets);
        let settings = Arc::clone(&self.settings);
        let trouble = Arc::clone(&self.trouble);
        let node = Arc::new(Node::start(address.clone(), targets, readonly, settings, trouble));
        nodes.entry(address.clone()).or_default()[role] = Some(Arc::clone(&node));
        node
    }

    /// Asks for a new look at the slots.
    pub(super) fn refresh(&self) {
        self.trouble.notify_one();
    }

    /// A listener was heard again, or no more: so will be the server's other connection.
    pub(super) fn note_life(&self, address: &Address, lives: bool) {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some([Some(node), _]) = nodes.get(address) {
            if lives { node.hurry() } else { node.kick() }
        }
    }

    /// Somebody was redirected: unknown servers announce nothing to us yet.
    pub(super) fn redirected(&self, address: &Address) {
        if self.known_map().is_none_or(|map| !map.primaries().contains(address)) {
            self.hub.suspend();
        }
        self.refresh();
    }

    async fn keep_map(self: Arc<Self>) {
        let mut looks = 0u32;
        loop {
            looks = looks.saturating_add(1);
            match self.ask_for_map().await {
                Ok(mut ranges) => {
                    self.remember_replicas(&mut ranges);
                    let map = Map::new(ranges);
                    if self.known_map().is_none_or(|known| *known != map) {
                        looks = 0;
                        self.take_over(map);
                    } else if !self.hub.is_announced() {
                        self.hub.require(&map.primaries(), true);
                    }
                }
                // An old map is better than none.
                Err(fault) => {
                    if self.known_map().is_none() {
                        self.map.send_replace(Known::Failed(fault));
                    }
                }
            }
            tokio::time::sleep(REST).await;
            if self.is_calm() {
                // Whatever goes wrong meanwhile is looked at soon enough.
                let trouble = async {
                    while self.is_calm() {
                        tokio::time::sleep(REST).await;
                    }
                };
                let _ = tokio::time::timeout(REST_WHEN_CALM - REST, trouble).await;
            }
            let rest = match (self.is_calm(), self.read_replicas) {
                (true, false) if looks < YOUNG && self.lacks_replicas() => WHILE_YOUNG,
                (true, false) => CALM,
                (true, true) => CALM_WITH_REPLICAS,
                (false, _) => TROUBLED,
            };
            let _ = tokio::time::timeout(rest, self.trouble.notified()).await;
        }
    }

    /// In the moment of a promotion a cluster names the primary that is gone, and no replica any more: the one that is being
    /// promoted can be asked all the same.
    fn remember_replicas(&self, ranges: &mut [Range]) {
        let Some(known) = self.known_map() else { return };
        for range in ranges.iter_mut().filter(|range| range.replicas.is_empty()) {
            let before = known.range(range.first).filter(|before| before.primary == range.primary);
            if let Some(before) = before
                && self.node(&range.primary, false).is_down()
            {
                range.replicas.clone_from(&before.replicas);
            }
        }
    }

    /// Whether a primary is known to have no replica, who could be asked for what it counts.
    fn lacks_replicas(&self) -> bool {
        self.known_map().is_some_and(|map| map.ranges.iter().any(|range| range.replicas.is_empty()))
    }

    fn is_calm(&self) -> bool {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        self.known_map().is_some()
            && (self.hub.is_announced() || self.hub.is_refused())
            && nodes.values().flatten().flatten().all(|node| !node.is_down())
    }

    /// While nothing is wrong asks somebody, otherwise everybody; the first answer counts.
    async fn ask_for_map(&self) -> Result<Vec<Range>, Fault> {
        let mut known: Vec<Arc<Node>> = {
            let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            nodes.values().flatten().flatten().filter(|node| node.is_up()).cloned().collect()
        };
        if self.is_calm() && known.len() > 1 {
            known = vec![known.swap_remove(rand::random_range(0..known.len()))];
        }
        match self.ask(known).await {
            Ok(ranges) => Ok(ranges),
            Err(_) => {
                let seeds = self.targets.seeds.iter().map(|(seed, _)| self.node(seed, false));
                self.ask(seeds.collect()).await
            }
        }
    }

    async fn ask(&self, nodes: Vec<Arc<Node>>) -> Result<Vec<Range>, Fault> {
        let limit = self.settings.connect_timeout;
        let question = &Command::of("CLUSTER", &["SLOTS"]);
        let mut asking: FuturesUnordered<_> =
            nodes
                .iter()
                .map(|node| async move {
                    (node.exchange(&[question], limit).await.pop(), node.address())
                })
                .collect();
        let mut why = Fault::Down("no server of the cluster can be reached".into());
        while let Some((answer, asked)) = asking.next().await {
            match answer {
                Some(Ok(reply)) => match slots::parse(&reply, asked) {
                    Some(ranges) if !ranges.is_empty() => return Ok(ranges),
                    _ => why = Fault::Down(format!("{asked} knows of no slots")),
                },
                Some(Err(fault)) => why = fault,
                None => {}
            }
        }
        Err(why)
    }

    /// First what announces, then what is used.
    fn take_over(self: &Arc<Self>, map: Map) {
        let (primaries, replicas) = (map.primaries(), map.replicas());
        // Other replicas, or the same in another order, are no reason to forget what is held.
        let moved = self.known_map().is_none_or(|known| !known.has_the_owners_of(&map));
        self.hub.require(&primaries, moved);
        {
            let mut ears = self.ears.lock().unwrap_or_else(PoisonError::into_inner);
            ears.retain(|address, _| primaries.contains(address));
            for address in &primaries {
                ears.entry(address.clone()).or_insert_with(|| {
                    let stop = self.stop.child_token();
                    let (token, listen) =
                        (stop.clone(), ear::listen(Arc::clone(self), address.clone()));
                    tokio::spawn(async move { token.run_until_cancelled(listen).await });
                    stop.drop_guard()
                });
            }
        }
        {
            let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            for (address, [primary, replica]) in nodes.iter_mut() {
                primary.take_if(|_| !primaries.contains(address));
                replica.take_if(|_| !replicas.iter().any(|(_, replica)| replica == address));
            }
            nodes.retain(|_, roles| roles.iter().any(Option::is_some));
        }
        for address in &primaries {
            self.node(address, false);
        }
        if self.read_replicas {
            for (_, replica) in &replicas {
                self.node(replica, true);
            }
        }
        self.clock.retain(|address| primaries.contains(address));
        self.map.send_replace(Known::Map(Arc::new(map)));
        if let Some(mut lag) = self.hub.lag() {
            // How far a replica is was said of the primary it had.
            lag.all_changed(Instant::now());
        }
    }

    /// Whether every primary answers.
    pub(super) async fn ping(&self) -> Result<(), Fault> {
        let limit = self.command_timeout / 2;
        let map = match tokio::time::timeout(limit, self.map()).await {
            Ok(map) => map?,
            Err(_) => return Err(Fault::TimedOut(limit)),
        };
        let ping = &Command::new("PING", []);
        let pings = map.primaries().into_iter().map(|address| async move {
            self.node(&address, false).exchange(&[ping], limit).await
        });
        let mut answers = futures::future::join_all(pings).await.into_iter().flatten();
        answers.try_for_each(|answer| answer.map(drop))
    }

    async fn keep_lag(self: Arc<Self>) {
        loop {
            if let Ok(map) = self.map().await {
                let pairs = map.replicas();
                let looks = pairs.iter().map(|(primary, replica)| self.look_at(primary, replica));
                futures::future::join_all(looks).await;
                if let Some(mut lag) = self.hub.lag() {
                    lag.prune(|address| pairs.iter().any(|(_, replica)| replica == address));
                }
            }
            tokio::time::sleep(LAG_EVERY).await;
        }
    }

    /// Whether a replica has everything its primary had a moment ago.
    async fn look_at(&self, primary: &Address, replica: &Address) {
        let before = Instant::now();
        let (at, _) = self.offset(primary, false).await.unwrap_or((u64::MAX, false));
        let Some((reached, linked)) = self.offset(replica, true).await else { return };
        if linked
            && reached >= at
            && before.elapsed() < MAX_LAG
            && let Some(mut lag) = self.hub.lag()
        {
            lag.caught_up(replica, before);
        }
    }

    /// How far a server is in its replication, and whether it hears its primary.
    async fn offset(&self, address: &Address, replica: bool) -> Option<(u64, bool)> {
        let question = Command::of("INFO", &["replication"]);
        let limit = self.settings.connect_timeout;
        let Some(Ok(Reply::Bytes(text))) =
            self.node(address, replica).exchange(&[&question], limit).await.pop()
        else {
            return None;
        };
        let text = String::from_utf8_lossy(&text);
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
        };
        let offset = if replica { "slave_repl_offset" } else { "master_repl_offset" };
        let role = if replica { "slave" } else { "master" };
        if field("role") != Some(role) {
            return None;
        }
        Some((field(offset)?.parse().ok()?, field("master_link_status") == Some("up")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_replicas_are_no_other_owners() {
        let at = |port| Address { host: "h".into(), port };
        let map = |parts: &[(u16, u16, u16, &[u16])]| {
            let range = |(first, last, primary, replicas): &(u16, u16, u16, &[u16])| Range {
                first: *first,
                last: *last,
                primary: at(*primary),
                replicas: replicas.iter().copied().map(at).collect(),
            };
            Map::new(parts.iter().map(range).collect())
        };
        let known = map(&[(0, 99, 1, &[4]), (100, 199, 2, &[5])]);
        for alike in [
            map(&[(0, 99, 1, &[]), (100, 199, 2, &[6, 5])]),
            map(&[(100, 199, 2, &[5]), (0, 99, 1, &[4])]),
            map(&[(0, 49, 1, &[4]), (50, 99, 1, &[4]), (100, 199, 2, &[5])]),
        ] {
            assert!(known.has_the_owners_of(&alike) && known != alike, "{:?}", alike.ranges);
        }
        for other in [
            map(&[(0, 99, 4, &[1]), (100, 199, 2, &[5])]),
            map(&[(0, 98, 1, &[4]), (99, 199, 2, &[5])]),
            map(&[(0, 99, 1, &[4])]),
        ] {
            assert!(!known.has_the_owners_of(&other), "{:?}", other.ranges);
        }
    }
}
