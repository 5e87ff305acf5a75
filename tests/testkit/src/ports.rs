//! Free ports that two test processes never both take.
//!
//! Ports are handed out from 20000 to 29999, below the range from which systems take the ports of outgoing connections, so
//! that no client's socket sits on one. They are claimed in blocks: a block is a file that the process keeps locked, and
//! the kernel drops the lock however the process ends. Each port is tried by binding before it is handed out, for
//! programs that know nothing of the locks. A port that a server gave back is handed out again last.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

use crate::dirs;
use crate::error::{Error, ErrorKind, Result};

const FIRST: u16 = 20_000;
const LAST: u16 = 29_999;
const BLOCK: u16 = 40;

#[derive(Debug)]
struct Claims {
    free: VecDeque<u16>,
    locks: Vec<File>,
    next_block: Option<u16>,
}

static CLAIMS: Mutex<Claims> =
    Mutex::new(Claims { free: VecDeque::new(), locks: Vec::new(), next_block: None });

/// A port of this process, given back when dropped. It stays claimed while its server is dead, so that it can return.
#[derive(Debug)]
pub(crate) struct Port(u16);

impl Port {
    /// Claims a port on which nothing listens.
    ///
    /// # Errors
    /// `Io` when all ports are taken or the lock files cannot be made.
    pub(crate) fn claim() -> Result<Self> {
        let mut claims = CLAIMS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        loop {
            while let Some(port) = claims.free.pop_front() {
                if is_free(port) {
                    return Ok(Self(port));
                }
            }
            claims.take_block()?;
        }
    }

    pub(crate) fn number(&self) -> u16 {
        self.0
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        CLAIMS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).free.push_back(self.0);
    }
}

impl Claims {
    fn take_block(&mut self) -> Result<()> {
        let folder = dirs::shared_base()?.join("ports");
        fs::create_dir_all(&folder)
            .map_err(|e| Error::io(format!("creating {}", folder.display()), e))?;
        let blocks = (LAST - FIRST + 1) / BLOCK;
        // Another account has its own lock files: start at different places, and let the binding decide the rest.
        let start =
            self.next_block.unwrap_or_else(|| (std::process::id() % u32::from(blocks)) as u16);
        for step in 0..blocks {
            let block = (start + step) % blocks;
            let first = FIRST + block * BLOCK;
            let Ok(lock) = File::create(folder.join(first.to_string())) else { continue };
            if lock.try_lock().is_ok() {
                self.locks.push(lock);
                self.next_block = Some((block + 1) % blocks);
                self.free.extend(first..first + BLOCK);
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::Io,
            format!("all ports from {FIRST} to {LAST} are claimed by test processes"),
        ))
    }
}

/// Both the loopback address and all addresses: a listener on either would be in the way.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    /// A program that another test is starting holds every socket of this process until it runs, also one that tried
    /// this port and was dropped.
    fn listen(port: u16) -> TcpListener {
        let begun = Instant::now();
        loop {
            match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                Err(e) if begun.elapsed() > Duration::from_secs(10) => panic!("port {port}: {e}"),
                Err(_) => std::thread::yield_now(),
                Ok(listener) => return listener,
            }
        }
    }

    #[test]
    fn ports_are_distinct_free_and_locked_against_other_processes() {
        let ports: Vec<Port> = (0..100).map(|_| Port::claim().unwrap()).collect();
        let numbers: BTreeSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), 100);
        for number in &numbers {
            assert!((FIRST..=LAST).contains(number));
            drop(listen(*number));
            let block = FIRST + (number - FIRST) / BLOCK * BLOCK;
            let lock =
                File::open(dirs::shared_base().unwrap().join("ports").join(block.to_string()))
                    .unwrap();
            assert!(lock.try_lock().is_err(), "another process could claim {number}");
        }
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_passed_over() {
        let port = Port::claim().unwrap();
        let number = port.number();
        let _somebody = listen(number);
        drop(port);
        // Given back, it stands last in line; whoever goes through the whole line does not get it.
        let others: Vec<Port> = (0..2 * BLOCK).map(|_| Port::claim().unwrap()).collect();
        assert!(others.iter().all(|other| other.number() != number));
    }
}
