//! Who the primary is, from what the nodes say of themselves. Pure.
//!
//! | situation | the primary |
//! |---|---|
//! | somebody forced one | that one |
//! | a topology is followed | the one it names, or none |
//! | one node says that it is | that one, unless its history is older than one that was accepted before |
//! | several say so | the one with the newest history (timeline); of equals the present one |
//! | none says so, the present one says that it is a replica | none |
//! | none says so | the present one: nothing better is known |
//!
//! The second rule of the third row is the fence: a primary that was replaced and comes back as it was does not get a
//! single write, also while its successor cannot be reached.

use resonant_common::join::Position;

use super::Role;

/// What a node last said of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sighting {
    /// `None` when it does not say, or cannot be asked.
    pub(super) role: Option<Role>,
    /// Which history it is in and how far.
    pub(super) position: Option<Position>,
}

/// Somebody's word that goes before what the nodes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Word {
    /// Nobody has said anything.
    #[default]
    None,
    /// This node it is, or none.
    Told(Option<usize>),
}

/// The history of the newest primary that was accepted: system and timeline.
pub(super) type Fence = Option<(u64, u32)>;

/// The primary's place, and the fence from now on.
pub(super) fn decide(
    present: Option<usize>,
    word: Word,
    seen: &[Sighting],
    fence: Fence,
) -> (Option<usize>, Fence) {
    if let Word::Told(told) = word {
        return (told, fence);
    }
    let claims =
        |place: &usize| seen.get(*place).is_some_and(|node| node.role == Some(Role::Primary));
    let age = |place: usize| {
        let position = seen.get(place).and_then(|node| node.position);
        position.map(|position| (position.system, position.timeline))
    };
    let admissible = |place: &usize| match (age(*place), fence) {
        (_, None) => true,
        (Some((system, timeline)), Some((fenced, least))) => system == fenced && timeline >= least,
        // It does not tell its history: it stays if it is, but does not become.
        (None, Some(_)) => present == Some(*place),
    };
    let best = (0..seen.len())
        .filter(claims)
        .filter(admissible)
        // The newest history; of equals the present one, then the first.
        .max_by_key(|place| {
            (
                age(*place).map(|(_, timeline)| timeline),
                present == Some(*place),
                std::cmp::Reverse(*place),
            )
        });
    let next = match (best, present) {
        (Some(best), _) => Some(best),
        (None, Some(present)) => match seen.get(present).and_then(|node| node.role) {
            None => Some(present),
            Some(_) => None,
        },
        (None, None) => None,
    };
    let accepted = next.filter(claims).and_then(age);
    (next, accepted.or(fence))
}

/// The nodes that claim to be the primary without being it: a sign that histories have parted.
pub(super) fn pretenders(primary: Option<usize>, seen: &[Sighting]) -> Vec<usize> {
    let claims = |place: &usize| seen[*place].role == Some(Role::Primary);
    (0..seen.len()).filter(claims).filter(|place| primary.is_some_and(|p| p != *place)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(role: impl Into<Option<Role>>, timeline: u32) -> Sighting {
        let position = (timeline > 0).then_some(Position { system: 7, timeline, offset: 1 });
        Sighting { role: role.into(), position }
    }

    use Role::{Primary as P, Replica as R};

    #[test]
    fn a_promotion_moves_the_primary_and_the_old_one_does_not_come_back() {
        let start = [node(P, 1), node(R, 1)];
        let (primary, fence) = decide(Some(0), Word::None, &start, None);
        assert_eq!((primary, fence), (Some(0), Some((7, 1))));
        // It dies: nothing better is known.
        let down = [node(None, 1), node(R, 1)];
        assert_eq!(decide(primary, Word::None, &down, fence), (Some(0), fence));
        let promoted = [node(None, 1), node(P, 2)];
        let (primary, fence) = decide(primary, Word::None, &promoted, fence);
        assert_eq!((primary, fence), (Some(1), Some((7, 2))));
        // The old one comes back as it was: not with the new one up, and not with it down.
        let back = [node(P, 1), node(P, 2)];
        assert_eq!(decide(primary, Word::None, &back, fence), (Some(1), fence));
        assert_eq!(pretenders(primary, &back), [0]);
        let alone = [node(P, 1), node(None, 2)];
        assert_eq!(decide(primary, Word::None, &alone, fence), (Some(1), fence));
        let restarted_as_replica = [node(P, 1), node(R, 2)];
        assert_eq!(decide(primary, Word::None, &restarted_as_replica, fence), (None, fence));
        // Promoted again it is newer.
        let again = [node(P, 3), node(R, 2)];
        assert_eq!(decide(None, Word::None, &again, fence), (Some(0), Some((7, 3))));
    }

    #[test]
    fn who_says_that_it_is_a_replica_takes_no_writes() {
        let both = [node(R, 1), node(R, 1)];
        assert_eq!(decide(Some(0), Word::None, &both, None).0, None);
        let silent = [node(None, 0), node(None, 0)];
        assert_eq!(decide(Some(0), Word::None, &silent, None).0, Some(0));
        // Settings from before a failover.
        let moved = [node(R, 2), node(P, 2)];
        assert_eq!(decide(Some(0), Word::None, &moved, None).0, Some(1));
    }

    #[test]
    fn a_word_goes_before_what_the_nodes_say() {
        let seen = [node(P, 1), node(R, 1)];
        assert_eq!(decide(Some(0), Word::Told(Some(1)), &seen, None).0, Some(1));
        assert_eq!(decide(Some(0), Word::Told(None), &seen, None).0, None);
    }

    #[test]
    fn a_node_of_another_database_or_without_a_history_does_not_become_it() {
        let fence = Some((7, 1));
        let foreign = Position { system: 8, timeline: 9, offset: 1 };
        let foreign = Sighting { role: Some(P), position: Some(foreign) };
        assert_eq!(decide(Some(0), Word::None, &[node(None, 1), foreign], fence).0, Some(0));
        assert_eq!(decide(Some(0), Word::None, &[node(None, 1), node(P, 0)], fence).0, Some(0));
        assert_eq!(decide(Some(0), Word::None, &[node(P, 0), node(R, 0)], fence).0, Some(0));
        // Where nobody tells one, the role is enough.
        assert_eq!(decide(Some(0), Word::None, &[node(R, 0), node(P, 0)], None).0, Some(1));
    }

    proptest! {
        #[test]
        fn the_history_of_the_primary_never_gets_older(
            rounds in proptest::collection::vec(
                proptest::collection::vec((0_u8..3, 0_u32..5), 3),
                1..40,
            ),
        ) {
            let (mut primary, mut fence) = (Some(0), None);
            let mut newest = 0;
            for round in rounds {
                let seen: Vec<_> = round
                    .into_iter()
                    .map(|(role, timeline)| node([None, Some(P), Some(R)][usize::from(role)], timeline))
                    .collect();
                let before = primary;
                (primary, fence) = decide(primary, Word::None, &seen, fence);
                if let Some(chosen) = primary {
                    let says = seen[chosen];
                    prop_assert!(says.role != Some(R), "a replica takes no writes");
                    if before != primary {
                        prop_assert_eq!(says.role, Some(P), "it becomes primary on its own word only");
                    }
                    if let (Some(P), Some(position)) = (says.role, says.position) {
                        prop_assert!(position.timeline >= newest);
                        newest = position.timeline;
                    }
                }
            }
        }
    }
}
