//! Where a node is, as far as its connections have found out: at which address, and where it is no more.
//!
//! A name that moves leaves connections behind at the old address. What is dead there ends by itself, as the kernel at the
//! other end says so. What hangs there says nothing, and looks like a long statement. The two are told apart by asking, once a
//! statement has been silent for a while: has the name left this address, and does nobody answer there any more? Only if both
//! are so is the address given up, with all connections to it. A name that still leads there, a host that is written as an
//! address, and a server that answers anything at all leave everything as it is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::wire::Address;
use super::{Node, hosts, wire};

/// How long each of the two questions may take.
const ANSWER: Duration = Duration::from_millis(500);
/// For how long an answer is good for others who ask the same.
const FRESH: Duration = Duration::from_millis(250);
/// As many addresses are remembered as left.
const REMEMBERED: usize = 8;

#[derive(Default)]
pub(super) struct Whereabouts {
    known: Mutex<Known>,
    /// Whether any address was left: most have none, and every checkout asks.
    any_left: AtomicBool,
    looked: tokio::sync::Mutex<Option<(Instant, Address)>>,
}

#[derive(Default)]
struct Known {
    /// Where a connection of a caller's own was opened last.
    present: Option<Address>,
    /// The system such a connection has found there.
    system: Option<u64>,
    left: VecDeque<Address>,
}

impl Whereabouts {
    pub(super) fn present(&self) -> Option<Address> {
        self.known().present.clone()
    }

    /// A connection was opened here.
    pub(super) fn found(&self, address: Address) {
        let mut known = self.known();
        known.left.retain(|left| *left != address);
        self.any_left.store(!known.left.is_empty(), Ordering::Release);
        if known.present.as_ref() != Some(&address) {
            // Elsewhere it may be another system.
            (known.present, known.system) = (Some(address), None);
        }
    }

    /// A connection has found out which system it talks to.
    pub(super) fn learned(&self, at: &Address, system: u64) {
        let mut known = self.known();
        if known.present.as_ref() == Some(at) {
            known.system = Some(system);
        }
    }

    /// Whether something at this address, of this system as far as it is known, is of the same server as the connections.
    pub(super) fn agrees(&self, address: &Address, system: Option<u64>) -> bool {
        let known = self.known();
        let same_place = known.present.as_ref().is_none_or(|present| present == address);
        let same_system = match (known.system, system) {
            (Some(known), Some(found)) => known == found,
            _ => true,
        };
        same_place && same_system
    }

    /// Whether the node is known not to be at this address any more.
    pub(super) fn has_left(&self, address: &Address) -> bool {
        self.any_left.load(Ordering::Acquire) && self.known().left.contains(address)
    }

    fn leave(&self, address: Address) {
        let mut known = self.known();
        if known.left.len() == REMEMBERED {
            known.left.pop_front();
        }
        known.left.push_back(address);
        self.any_left.store(true, Ordering::Release);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the node has left this address and nobody answers there. Asked when something has been silent for a while.
pub(super) async fn is_left_behind(node: &Node, name: &str, address: &Address) -> bool {
    let whereabouts = &node.whereabouts;
    if whereabouts.has_left(address) {
        return true;
    }
    if !hosts::has_a_name(node) {
        return false;
    }
    let mut looked = whereabouts.looked.lock().await;
    let fresh = |(at, of): &(Instant, Address)| at.elapsed() < FRESH && of == address;
    if whereabouts.has_left(address) || looked.as_ref().is_some_and(fresh) {
        return whereabouts.has_left(address);
    }
    let left = is_another_place(node, name, address).await && !wire::answers(address, ANSWER).await;
    *looked = Some((Instant::now(), address.clone()));
    if left {
        tracing::warn!(node = name, %address, "the name leads elsewhere and nobody answers here any more: connections to it are given up");
        whereabouts.leave(address.clone());
    }
    left
}

/// Whether the name has addresses, and this is none of them.
async fn is_another_place(node: &Node, name: &str, address: &Address) -> bool {
    match timeout(ANSWER, hosts::candidates(node, name)).await {
        Ok(Ok(found)) => !found.is_empty() && found.iter().all(|(_, found)| found != address),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address::Tcp(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn what_is_elsewhere_or_of_another_system_does_not_agree() {
        let whereabouts = Whereabouts::default();
        assert!(whereabouts.agrees(&at(1), Some(7)), "nothing is known");
        whereabouts.found(at(1));
        whereabouts.learned(&at(2), 9);
        whereabouts.learned(&at(1), 7);
        assert!(whereabouts.agrees(&at(1), Some(7)) && whereabouts.agrees(&at(1), None));
        assert!(!whereabouts.agrees(&at(1), Some(8)) && !whereabouts.agrees(&at(2), Some(7)));
        whereabouts.found(at(2));
        assert!(whereabouts.agrees(&at(2), Some(8)), "at another place it may be another system");
        assert!(!whereabouts.agrees(&at(1), Some(7)));
    }

    #[test]
    fn an_address_that_was_left_stays_so_until_something_is_found_there() {
        let whereabouts = Whereabouts::default();
        assert!(!whereabouts.has_left(&at(1)));
        for port in 1..=REMEMBERED as u16 + 1 {
            whereabouts.leave(at(port));
        }
        assert!(!whereabouts.has_left(&at(1)), "the oldest one is forgotten");
        assert!(whereabouts.has_left(&at(2)));
        whereabouts.found(at(2));
        assert!(!whereabouts.has_left(&at(2)) && whereabouts.has_left(&at(3)));
    }
}
