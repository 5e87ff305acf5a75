//! The faults of a run, drawn from its seed.

use crate::core::Chance;

/// What a run is made of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Plan {
    Faults(u32),
    /// Only the primary is lost, once.
    LosePrimary,
}

/// A participant of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum At {
    Manager(usize),
    Voter(usize),
    Region(usize),
    /// The way to power over a region's host.
    Power(usize),
}

pub(super) const SIDE: usize = 3;

impl At {
    /// Its number on the network.
    pub(super) fn number(self) -> usize {
        match self {
            At::Manager(n) => n,
            At::Voter(n) => SIDE + n,
            At::Region(n) => SIDE * 2 + n,
            At::Power(n) => SIDE * 3 + n,
        }
    }
}

pub(super) const PLACES: usize = SIDE * 4;

#[derive(Debug, Clone)]
pub(super) enum Fault {
    CrashRegion(usize),
    CrashPrimary,
    StartRegion(usize),
    StopRegionFor(usize, u64),
    Sick(usize, bool),
    /// Replay of a standby waits.
    Hold(usize, bool),
    CrashManager(usize),
    StartManager(usize),
    StopManagerFor(usize, u64),
    CrashVoter(usize, bool),
    SaveVoter(usize),
    RestoreVoter(usize),
    /// Cuts from the left to the right, as bits over the numbers.
    Cut(u32, u32),
    Mend(u32, u32),
    Loss(u64),
    Switchover(usize, usize),
    Pause(usize, bool),
}

/// When what goes wrong, and when it is over.
pub(super) fn draw(
    plan: Plan,
    chance: &mut Chance,
    start: u64,
    synchronous: bool,
) -> (Vec<(u64, Fault)>, u64) {
    let second = 1_000_000;
    let mut faults = Vec::new();
    let Plan::Faults(count) = plan else {
        return (vec![(start + chance.under(second), Fault::CrashPrimary)], start + second);
    };
    let span = u64::from(count) * 4 * second;
    let restored = chance.under(SIDE as u64) as usize;
    for _ in 0..count {
        let at = start + chance.under(span);
        let n = chance.under(SIDE as u64) as usize;
        let m = chance.under(SIDE as u64) as usize;
        let long = second / 10 + chance.under(14 * second);
        let short = second / 20 + chance.under(4 * second);
        match chance.under(22) {
            0..=2 => {
                faults.push((at, Fault::CrashPrimary));
                faults.extend((0..SIDE).map(|region| (at + long, Fault::StartRegion(region))));
            }
            3 => {
                faults.push((at, Fault::CrashRegion(n)));
                faults.push((at + long, Fault::StartRegion(n)));
            }
            4 | 5 => faults.push((at, Fault::StopRegionFor(n, long))),
            6 => {
                faults.push((at, Fault::Sick(n, true)));
                faults.push((at + long, Fault::Sick(n, false)));
            }
            7 | 8 => {
                faults.push((at, Fault::CrashManager(n)));
                faults.push((at + short, Fault::StartManager(n)));
            }
            9 | 10 => faults.push((at, Fault::StopManagerFor(n, long))),
            11 => {
                faults.push((at, Fault::CrashVoter(n, true)));
                faults.push((at + long, Fault::CrashVoter(n, false)));
            }
            12 if synchronous => {
                faults.push((at, Fault::SaveVoter(restored)));
                faults.push((at + long, Fault::RestoreVoter(restored)));
            }
            13 | 14 => {
                // A side of everything, both ways.
                let side = chance.under(1 << PLACES) as u32;
                for (left, right) in [(side, !side), (!side, side)] {
                    faults.push((at, Fault::Cut(left, right)));
                    faults.push((at + long, Fault::Mend(left, right)));
                }
            }
            15 => {
                // One way, between two.
                let pair = (1 << chance.under(PLACES as u64), 1 << chance.under(PLACES as u64));
                faults.push((at, Fault::Cut(pair.0, pair.1)));
                faults.push((at + long, Fault::Mend(pair.0, pair.1)));
            }
            16 => {
                // One manager from one region, both ways: the primary lives for everybody else.
                let (left, right) = (1 << At::Manager(n).number(), 1 << At::Region(m).number());
                for (left, right) in [(left, right), (right, left)] {
                    faults.push((at, Fault::Cut(left, right)));
                    faults.push((at + long, Fault::Mend(left, right)));
                }
            }
            17 => {
                faults.push((at, Fault::Loss(30)));
                faults.push((at + short, Fault::Loss(1)));
            }
            18 => faults.push((at, Fault::Switchover(n, m))),
            19 => {
                faults.push((at, Fault::Hold(n, true)));
                faults.push((at + long, Fault::Hold(n, false)));
            }
            20 => {
                // One standby has everything and has read little of it, the other has less, and the primary is lost.
                faults.push((at, Fault::Hold(n, true)));
                faults.push((at + short, Fault::StopRegionFor(m, second)));
                faults.push((at + short + second / 2, Fault::CrashPrimary));
                faults.push((at + short + long, Fault::Hold(n, false)));
                let back = at + short + long;
                faults.extend((0..SIDE).map(|region| (back, Fault::StartRegion(region))));
            }
            _ => {
                faults.push((at, Fault::Pause(n, true)));
                faults.push((at + long, Fault::Pause(m, false)));
            }
        }
    }
    (faults, start + span)
}
