//! The hosts of a URL and their addresses.

use std::net::{IpAddr, SocketAddr};

use rand::seq::SliceRandom;
use tokio_postgres::config::{Host, LoadBalanceHosts};

use crate::{Error, ErrorKind, Result};

use super::Node;
use super::wire::Address;

/// Every address in the order they are tried.
pub(super) async fn candidates(node: &Node, name: &str) -> Result<Vec<(String, Address)>> {
    let config = &node.settings.config;
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let port = |at: usize| node.settings.port(at);
    let mut order: Vec<usize> = (0..hosts.len().max(addresses.len())).collect();
    let random = config.get_load_balance_hosts() == LoadBalanceHosts::Random;
    if random {
        order.shuffle(&mut rand::rng());
    }
    let mut candidates = Vec::new();
    let mut fault = None;
    for at in order {
        let host = match hosts.get(at) {
            Some(Host::Tcp(host)) => host.clone(),
            #[cfg(unix)]
            Some(Host::Unix(folder)) => {
                let path = folder.join(format!(".s.PGSQL.{}", port(at)));
                candidates.push((String::new(), Address::Unix(path)));
                continue;
            }
            None => addresses[at].to_string(),
        };
        if let Some(address) = addresses.get(at) {
            candidates.push((host, Address::Tcp(SocketAddr::new(*address, port(at)))));
            continue;
        }
        match node.resolver.resolve(&host, port(at)).await {
            Ok(mut found) => {
                if random {
                    found.shuffle(&mut rand::rng());
                }
                candidates
                    .extend(found.into_iter().map(|address| (host.clone(), Address::Tcp(address))));
            }
            Err(error) => {
                let message = format!("{name}: the name {host:?} cannot be resolved ({error})");
                fault =
                    Some(Error::new(ErrorKind::Unavailable, "connect", message).with_source(error));
            }
        }
    }
    match (candidates.is_empty(), fault) {
        (true, Some(fault)) => Err(fault),
        _ => {
            // Whoever was good last is asked first; the sort keeps the order of the others.
            if let (false, Some(good)) = (random, node.whereabouts.present()) {
                candidates.sort_by_key(|(_, address)| *address != good);
            }
            Ok(candidates)
        }
    }
}

/// Whether a name that may move leads to the node.
pub(super) fn has_a_name(node: &Node) -> bool {
    let config = &node.settings.config;
    let is_name = |host: &Host| match host {
        Host::Tcp(host) => host.parse::<IpAddr>().is_err(),
        #[cfg(unix)]
        Host::Unix(_) => false,
    };
    config.get_hostaddrs().is_empty() && config.get_hosts().iter().any(is_name)
}

/// Whether all connections go to the same address as long as the name leads there.
pub(super) fn is_steady(node: &Node) -> bool {
    node.settings.config.get_load_balance_hosts() != LoadBalanceHosts::Random
}
