//! How many partitions a worker should own. Pure.
//!
//! Workers of a queue stand in a row: each leases the first free place. Who stands at place `rank` of `members` gets an
//! equal share, the first ones one more where it does not divide. A worker above its share gives partitions back,
//! one below it takes free ones, so partitions move only where they must.

/// The share of the worker that stands behind `rank` others.
pub(crate) fn share(partitions: u32, members: u32, rank: u32) -> u32 {
    let members = members.max(1);
    partitions / members + u32::from(rank < partitions % members)
}

/// In which order a worker tries free partitions: each starts elsewhere, so that newcomers do not collide.
pub(crate) fn order(partitions: u32, members: u32, rank: u32) -> impl Iterator<Item = u32> {
    let start = u64::from(partitions) * u64::from(rank) / u64::from(members.max(1));
    let start = u32::try_from(start).unwrap_or_default();
    (start..partitions).chain(0..start.min(partitions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_differ_by_at_most_one() {
        for partitions in 1..40 {
            for members in 1..40 {
                let shares: Vec<_> =
                    (0..members).map(|rank| share(partitions, members, rank)).collect();
                assert_eq!(shares.iter().sum::<u32>(), partitions);
                let (low, high) = (shares.iter().min(), shares.iter().max());
                assert!(high.unwrap_or(&0) - low.unwrap_or(&0) <= 1);
            }
        }
    }

    #[test]
    fn every_partition_is_tried_once() {
        for (members, rank) in [(1, 0), (3, 0), (3, 2), (5, 4), (0, 7)] {
            let mut tried: Vec<_> = order(16, members, rank).collect();
            tried.sort_unstable();
            assert_eq!(tried, (0..16).collect::<Vec<_>>());
        }
    }
}
