//! Power over a region's host, step by step, so that a manager can be lost between any two.

use super::chaos::At;
use super::laws::Law;
use super::world::{Due, Message, SECOND, World};
use crate::core::flaw::Flaw;
use crate::region::{Balk, Done, Pledge, Proof, Verb};

/// Where a rejoin stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The server is stopped, and its pledge looked at again: until now others could give it orders.
    Stop,
    /// Its data are rewound, and with the primary's files comes the primary's pledge.
    Rewind,
    /// The manager gives its own order, to be sure.
    Follow,
}

/// A server that is brought back.
#[derive(Debug, Clone)]
pub(super) struct Rejoin {
    region: usize,
    primary: usize,
    stage: Stage,
    order: Pledge,
    manager: usize,
    incarnation: u64,
    id: u64,
    lost: u64,
}

impl World {
    #[expect(clippy::too_many_arguments, reason = "an order and where its answer goes")]
    pub(super) fn by_power(
        &mut self,
        region: usize,
        manager: usize,
        incarnation: u64,
        id: u64,
        order: &Pledge,
        verb: Verb,
        peer: Option<usize>,
    ) {
        let result = match (verb, peer) {
            (Verb::Fence, _) => self.take(region, order).map(|()| {
                self.servers[region].stopped = true;
                let by = "power".to_owned();
                Done::Fenced(Proof::Stopped { region: self.names[region].clone(), by })
            }),
            (Verb::Rejoin, Some(primary)) => {
                let rejoin = Rejoin {
                    region,
                    primary,
                    stage: Stage::Stop,
                    order: order.clone(),
                    manager,
                    incarnation,
                    id,
                    lost: 0,
                };
                return self.begin_rejoin(rejoin);
            }
            _ => Err(Balk::Unsupported),
        };
        let message = Message::Done { id, result };
        self.send(At::Power(region), At::Manager(manager), incarnation, message);
    }

    /// Looks at the pledge, and takes the order's.
    fn take(&mut self, region: usize, order: &Pledge) -> Result<(), Balk> {
        if self.flaws.has(Flaw::PowerIgnoresPledge) {
            return Ok(());
        }
        self.servers[region].admit(order).map_err(Balk::Pledged)
    }

    fn reaches(&self, region: usize, primary: usize) -> bool {
        self.servers[primary].works()
            && self.servers[primary].primary
            && self.cuts[At::Region(region).number()][At::Region(primary).number()] == 0
    }

    fn begin_rejoin(&mut self, rejoin: Rejoin) {
        let (region, primary) = (rejoin.region, rejoin.primary);
        if !self.reaches(region, primary) {
            let why = "the primary cannot be reached from here".to_owned();
            return self.end_rejoin(&rejoin, Err(Balk::Failed(why)));
        }
        if let Err(balk) = self.take(region, &rejoin.order) {
            return self.end_rejoin(&rejoin, Err(balk));
        }
        let server = &self.servers[region];
        if server.works() && !server.primary && server.is_behind(&self.servers[primary]) {
            self.servers[region].follow(primary);
            return self.end_rejoin(&rejoin, Ok(Done::Rejoined(Some(0))));
        }
        // Managers that stop just here are rare by themselves, and what they ordered goes on when they wake.
        if self.calm_at.is_none() && self.chance.percent(20) {
            let long = SECOND + self.chance.under(12 * SECOND);
            let manager = &mut self.managers[rejoin.manager];
            manager.stopped_until = manager.stopped_until.max(self.now + long);
        }
        self.later(rejoin, 500);
    }

    /// The next stage comes within so many milliseconds.
    fn later(&mut self, rejoin: Rejoin, within: u64) {
        let at = self.now + 1000 + self.chance.under(within * 1000);
        self.at(at, Due::Rejoin(rejoin));
    }

    fn end_rejoin(&mut self, rejoin: &Rejoin, result: Result<Done, Balk>) {
        let message = Message::Done { id: rejoin.id, result };
        let (from, to) = (At::Power(rejoin.region), At::Manager(rejoin.manager));
        self.send(from, to, rejoin.incarnation, message);
    }

    /// The next stage of a rejoin. Where there is power over the host at any time, one whose manager is lost ends here, and
    /// the next manager begins another.
    pub(super) fn rejoin(&mut self, mut rejoin: Rejoin) {
        let (region, primary) = (rejoin.region, rejoin.primary);
        let manager = &self.managers[rejoin.manager];
        let lost = manager.incarnation != rejoin.incarnation || manager.core.is_none();
        if lost && (self.power || rejoin.stage == Stage::Follow) {
            return;
        }
        if manager.stopped_until > self.now && (self.power || rejoin.stage == Stage::Follow) {
            let at = manager.stopped_until;
            return self.at(at, Due::Rejoin(rejoin));
        }
        let forgets = self.flaws.has(Flaw::RewindForgetsPledge);
        if rejoin.stage != Stage::Follow
            && !forgets
            && let Err(balk) = self.take(region, &rejoin.order)
        {
            return self.end_rejoin(&rejoin, Err(balk));
        }
        match rejoin.stage {
            Stage::Stop => {
                self.servers[region].stopped = true;
                rejoin.stage = Stage::Rewind;
                self.later(rejoin, 1000);
            }
            Stage::Rewind => {
                if !self.reaches(region, primary) {
                    // Without power at any time it is started as it was.
                    if !self.power {
                        self.servers[region].stopped = false;
                        self.servers[region].restart(self.now);
                    }
                    let why = "the primary cannot be reached from here".to_owned();
                    return self.end_rejoin(&rejoin, Err(Balk::Failed(why)));
                }
                let source = self.servers[primary].clone();
                let pledged = self.servers[region].pledge.epoch;
                let server = &mut self.servers[region];
                rejoin.lost = server.rewind_to(&source);
                server.stopped = false;
                server.restart(self.now);
                if forgets {
                    server.pledge = source.pledge;
                }
                server.follow(primary);
                let left = server.pledge.epoch;
                if left < pledged {
                    self.laws.breaks(Law::PledgeKept, self.now, || {
                        format!("region {region} was pledged to {pledged}, and is to {left}")
                    });
                }
                rejoin.stage = Stage::Follow;
                self.later(rejoin, 20);
            }
            Stage::Follow => {
                let Rejoin { id, order, lost, .. } = rejoin;
                let message = Message::Follow { id, order, upstream: primary, lost };
                let from = At::Manager(rejoin.manager);
                self.send(from, At::Region(region), rejoin.incarnation, message);
            }
        }
    }
}
