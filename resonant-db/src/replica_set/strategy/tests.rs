//! The strategies, with invented fields and chances.

use proptest::prelude::*;

use super::*;

const ALL: [ReadStrategy; 8] = [
    ReadStrategy::LeastInFlight,
    ReadStrategy::LowestLag,
    ReadStrategy::PeakEwma,
    ReadStrategy::Primary,
    ReadStrategy::PreferPrimary,
    ReadStrategy::Random,
    ReadStrategy::RoundRobin,
    ReadStrategy::ZoneFirst,
];

fn node(role: Role) -> Candidate<'static> {
    Candidate { name: "node", role, zone: None, in_flight: 0, latency: None, staleness: None }
}

fn replicas(count: usize) -> Vec<Candidate<'static>> {
    vec![node(Role::Replica); count]
}

fn draw(turn: usize, chance: u64) -> Draw<'static> {
    Draw { turn, chance, zone: Some("here"), primary_included: false }
}

fn turns(strategy: ReadStrategy, field: &[Candidate<'_>]) -> Vec<usize> {
    (0..6).filter_map(|turn| strategy.choose(field, draw(turn, 0))).collect()
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn round_robin_visits_each_in_turn_and_the_primary_last() {
    assert_eq!(turns(ReadStrategy::RoundRobin, &replicas(3)), [0, 1, 2, 0, 1, 2]);
    assert_eq!(turns(ReadStrategy::RoundRobin, &[node(Role::Primary)]), [0; 6]);
    assert_eq!(turns(ReadStrategy::RoundRobin, &[]), [0; 0]);
    let all = [node(Role::Primary), node(Role::Replica)];
    assert_eq!(turns(ReadStrategy::RoundRobin, &all), [1; 6]);
    let included = Draw { primary_included: true, ..draw(2, 0) };
    assert_eq!(ReadStrategy::RoundRobin.choose(&all, included), Some(0));
}

#[test]
fn least_in_flight_takes_the_idlest_and_turns_among_equals() {
    let mut field = replicas(3);
    field[0].in_flight = 1;
    assert_eq!(turns(ReadStrategy::LeastInFlight, &field), [1, 2, 1, 2, 1, 2]);
}

#[test]
fn lowest_lag_takes_the_least_late_and_trusts_nobody_unknown() {
    let mut field = replicas(3);
    assert_eq!(turns(ReadStrategy::LowestLag, &field), [0, 1, 2, 0, 1, 2], "nothing is known");
    (field[0].staleness, field[1].staleness) = (Some(millis(900)), Some(millis(300)));
    assert_eq!(turns(ReadStrategy::LowestLag, &field), [1; 6]);
    field[2].staleness = Some(millis(390));
    assert_eq!(turns(ReadStrategy::LowestLag, &field), [1, 2, 1, 2, 1, 2], "as good");
}

#[test]
fn zone_first_stays_at_home_while_it_can() {
    let mut field = replicas(3);
    assert_eq!(turns(ReadStrategy::ZoneFirst, &field), [0, 1, 2, 0, 1, 2]);
    (field[0].zone, field[1].zone, field[2].zone) = (Some("there"), Some("here"), Some("here"));
    assert_eq!(turns(ReadStrategy::ZoneFirst, &field), [1, 2, 1, 2, 1, 2]);
    assert_eq!(turns(ReadStrategy::ZoneFirst, &field[..1]), [0; 6]);
}

#[test]
fn of_two_by_chance_the_faster_one_answers() {
    let mut field = replicas(3);
    for node in &mut field {
        node.latency = Some(millis(2));
    }
    field[1].latency = Some(millis(22));
    let mut asked = [0; 3];
    // Every pair is drawn as often as any other.
    for first in 0..30_u64 {
        for second in 0..30_u64 {
            let chosen = ReadStrategy::PeakEwma.choose(&field, draw(0, first | second << 32));
            asked[chosen.expect("somebody")] += 1;
        }
    }
    assert_eq!(asked[1], 0, "the slow one loses against everybody");
    assert_eq!(asked[0] + asked[2], 900);
    // A fast one with a queue is no better.
    field[0].in_flight = 50;
    field[2].in_flight = 50;
    assert_eq!(ReadStrategy::PeakEwma.choose(&field[..2], draw(0, 0)), Some(1));
    // Who was never asked is tried once, not by everybody at once.
    let mut fresh = replicas(2);
    fresh[0].latency = Some(millis(2));
    assert_eq!(ReadStrategy::PeakEwma.choose(&fresh, draw(0, 0)), Some(1));
    fresh[1].in_flight = 1;
    assert_eq!(ReadStrategy::PeakEwma.choose(&fresh, draw(0, 0)), Some(0));
}

/// A replica that takes 20 ms more than the others, calls that come every millisecond: what the slowest percent of
/// the calls take with either strategy.
#[tokio::test]
async fn a_slowed_replica_hurts_peak_ewma_far_less_than_round_robin() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use tokio::time::Instant;

    let worst = |strategy: ReadStrategy| {
        let (t0, mut chance) = (Instant::now(), StdRng::seed_from_u64(7));
        let mut latency = [(); 3].map(|()| super::super::latency::PeakEwma::default());
        let mut ends: Vec<(Instant, usize, Duration)> = Vec::new();
        let mut took = Vec::new();
        for call in 0..5000_u32 {
            let now = t0 + millis(1) * call;
            ends.retain(|(end, place, took)| {
                if *end <= now {
                    latency[*place].observe(*took, *end);
                }
                *end > now
            });
            let mut field = replicas(3);
            for (place, node) in field.iter_mut().enumerate() {
                node.in_flight = ends.iter().filter(|(_, at, _)| *at == place).count();
                node.latency = latency[place].expected(now);
            }
            let draw = draw(call as usize, chance.random());
            let place = strategy.choose(&field, draw).expect("somebody");
            let time = millis(if place == 1 { 22 } else { 2 });
            ends.push((now + time, place, time));
            took.push(time);
        }
        took.sort();
        took[took.len() * 99 / 100]
    };
    let (turns, ewma) = (worst(ReadStrategy::RoundRobin), worst(ReadStrategy::PeakEwma));
    assert_eq!(turns, millis(22));
    assert!(ewma * 2 <= turns, "p99 {ewma:?} against {turns:?}");
}

#[test]
fn the_primary_is_asked_as_the_strategy_says() {
    let all = [node(Role::Replica), node(Role::Primary)];
    for strategy in [ReadStrategy::Primary, ReadStrategy::PreferPrimary] {
        assert_eq!(strategy.choose(&all, draw(0, 0)), Some(1));
    }
    assert_eq!(ReadStrategy::Primary.choose(&all[..1], draw(0, 0)), None);
    assert_eq!(ReadStrategy::PreferPrimary.choose(&all[..1], draw(0, 0)), Some(0));
}

proptest! {
    #[test]
    fn somebody_is_chosen_while_there_is_anybody(
        strategy in proptest::sample::select(&ALL[..]),
        turn: usize,
        chance: u64,
        included: bool,
        nodes in proptest::collection::vec((0_usize..5, any::<Option<u16>>(), any::<Option<u16>>()), 0..6),
        primary in any::<Option<u8>>(),
    ) {
        let mut field: Vec<_> = nodes
            .into_iter()
            .map(|(in_flight, latency, lag)| Candidate {
                in_flight,
                latency: latency.map(|n| millis(n.into())),
                staleness: lag.map(|n| millis(n.into())),
                ..node(Role::Replica)
            })
            .collect();
        if let Some(place) = primary.map(usize::from).and_then(|n| n.checked_rem(field.len())) {
            field[place].role = Role::Primary;
        }
        let chosen =
            strategy.choose(&field, Draw { primary_included: included, ..draw(turn, chance) });
        match (strategy, chosen) {
            (ReadStrategy::Primary, chosen) => {
                prop_assert_eq!(chosen, field.iter().position(|node| node.role == Role::Primary));
            }
            (_, Some(place)) => prop_assert!(place < field.len()),
            (_, None) => prop_assert!(field.is_empty()),
        }
    }
}

#[test]
fn random_reaches_every_replica() {
    let mut seen = [0; 3];
    for chance in 0..300 {
        seen[ReadStrategy::Random.choose(&replicas(3), draw(0, chance)).expect("somebody")] += 1;
    }
    assert_eq!(seen, [100; 3]);
}

#[test]
fn settings_use_the_names_of_the_guide() -> Result<(), serde_json::Error> {
    let names = ALL.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    assert!(names.contains(&"\"round_robin\"".into()) && names.contains(&"\"peak_ewma\"".into()));
    for (strategy, name) in ALL.iter().zip(names) {
        assert_eq!(serde_json::from_str::<ReadStrategy>(&name)?, *strategy);
    }
    Ok(())
}
