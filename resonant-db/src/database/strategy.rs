//! Which node answers a read: a pure choice.

use serde::{Deserialize, Serialize};

/// How reads are spread over the replicas.
///
/// A replica that keeps failing is left out. When no replica is left, or there is none, reads go to the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReadStrategy {
    /// The replica with the fewest statements in flight from here; of equals, each in turn.
    LeastInFlight,
    /// The primary, and nothing else when it is down.
    Primary,
    /// The primary; the replicas while it cannot be reached.
    PreferPrimary,
    /// Any replica, by chance.
    Random,
    /// One replica after the other. Default.
    #[default]
    RoundRobin,
}

/// The node a read goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Primary,
    /// The replica at this place, counted from 0.
    Replica(usize),
}

/// What a choice is made from.
pub(super) struct Field<'a> {
    /// How many replicas there are.
    pub(super) replicas: usize,
    /// Rises by one with each read.
    pub(super) turn: usize,
    /// A random number.
    pub(super) chance: u64,
    /// Whether the replica at a place may be asked.
    pub(super) usable: &'a dyn Fn(usize) -> bool,
    /// Whether the primary may be asked.
    pub(super) primary_usable: bool,
    /// How many statements are in flight at the replica at a place.
    pub(super) in_flight: &'a dyn Fn(usize) -> usize,
}

impl ReadStrategy {
    /// The node to ask, or `None` when none is left.
    pub(super) fn choose(self, field: &Field<'_>) -> Option<Choice> {
        let primary = field.primary_usable.then_some(Choice::Primary);
        match self {
            ReadStrategy::Primary => primary,
            ReadStrategy::PreferPrimary => primary.or_else(|| field.first_from(field.turn)),
            ReadStrategy::RoundRobin => field.first_from(field.turn).or(primary),
            ReadStrategy::Random => field.at_random().or(primary),
            ReadStrategy::LeastInFlight => field.least_in_flight().or(primary),
        }
    }
}

impl Field<'_> {
    /// All replicas that may be asked, from a place on and around.
    fn usable_from(&self, start: usize) -> impl Iterator<Item = usize> + Clone + '_ {
        let start = start.checked_rem(self.replicas).unwrap_or(0);
        (start..self.replicas).chain(0..start).filter(|place| (self.usable)(*place))
    }

    fn first_from(&self, start: usize) -> Option<Choice> {
        self.usable_from(start).next().map(Choice::Replica)
    }

    fn at_random(&self) -> Option<Choice> {
        let mut usable = self.usable_from(0);
        let count = u64::try_from(usable.clone().count()).ok()?;
        let skip = usize::try_from(self.chance.checked_rem(count)?).ok()?;
        usable.nth(skip).map(Choice::Replica)
    }

    fn least_in_flight(&self) -> Option<Choice> {
        self.usable_from(self.turn)
            .min_by_key(|place| (self.in_flight)(*place))
            .map(Choice::Replica)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [ReadStrategy; 5] = [
        ReadStrategy::LeastInFlight,
        ReadStrategy::Primary,
        ReadStrategy::PreferPrimary,
        ReadStrategy::Random,
        ReadStrategy::RoundRobin,
    ];

    fn choose(
        strategy: ReadStrategy,
        turn: usize,
        up: &[bool],
        primary: bool,
        load: &[usize],
    ) -> Option<Choice> {
        strategy.choose(&Field {
            replicas: up.len(),
            turn,
            chance: turn as u64,
            usable: &|place| up[place],
            primary_usable: primary,
            in_flight: &|place| load[place],
        })
    }

    #[test]
    fn round_robin_visits_each_in_turn_and_skips_who_is_out() {
        let places = |up: &[bool]| -> Vec<_> {
            (0..6).map(|turn| choose(ReadStrategy::RoundRobin, turn, up, true, &[0; 3])).collect()
        };
        let replica = |place| Some(Choice::Replica(place));
        assert_eq!(places(&[true; 3]), [0, 1, 2, 0, 1, 2].map(replica));
        assert_eq!(places(&[true, false, true]), [0, 2, 2, 0, 2, 2].map(replica));
        assert_eq!(places(&[false; 3]), [Some(Choice::Primary); 6]);
        assert_eq!(places(&[]), [Some(Choice::Primary); 6]);
    }

    #[test]
    fn least_in_flight_takes_the_idlest_and_turns_among_equals() {
        let at = |turn| choose(ReadStrategy::LeastInFlight, turn, &[true; 3], true, &[1, 0, 0]);
        assert_eq!([0, 1, 2].map(at), [1, 1, 2].map(|place| Some(Choice::Replica(place))));
    }

    #[test]
    fn the_primary_is_asked_as_the_strategy_says() {
        let primary = Some(Choice::Primary);
        assert_eq!(choose(ReadStrategy::Primary, 0, &[true], true, &[0]), primary);
        assert_eq!(choose(ReadStrategy::Primary, 0, &[true], false, &[0]), None);
        assert_eq!(choose(ReadStrategy::PreferPrimary, 0, &[true], true, &[0]), primary);
        let fallback = choose(ReadStrategy::PreferPrimary, 0, &[true], false, &[0]);
        assert_eq!(fallback, Some(Choice::Replica(0)));
    }

    proptest! {
        #[test]
        fn only_usable_nodes_are_chosen_and_one_is_while_there_is_one(
            strategy in proptest::sample::select(&ALL[..]),
            turn: usize,
            nodes in proptest::collection::vec((any::<bool>(), 0_usize..5), 0..6),
            primary: bool,
        ) {
            let (up, load): (Vec<_>, Vec<_>) = nodes.into_iter().unzip();
            let any = primary || (strategy != ReadStrategy::Primary && up.contains(&true));
            match choose(strategy, turn, &up, primary, &load) {
                Some(Choice::Primary) => prop_assert!(primary),
                Some(Choice::Replica(place)) => prop_assert!(up[place]),
                None => prop_assert!(!any),
            }
        }
    }

    #[test]
    fn random_reaches_every_replica() {
        let mut seen = [0; 3];
        for chance in 0..300 {
            if let Some(Choice::Replica(place)) =
                choose(ReadStrategy::Random, chance, &[true; 3], true, &[0; 3])
            {
                seen[place] += 1;
            }
        }
        assert_eq!(seen, [100; 3]);
    }

    #[test]
    fn settings_use_the_names_of_the_guide() -> Result<(), serde_json::Error> {
        assert_eq!(
            serde_json::from_str::<ReadStrategy>("\"round_robin\"")?,
            ReadStrategy::RoundRobin
        );
        assert_eq!(serde_json::to_string(&ReadStrategy::LeastInFlight)?, "\"least_in_flight\"");
        Ok(())
    }
}
