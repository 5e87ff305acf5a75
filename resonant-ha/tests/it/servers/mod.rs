//! Real PostgreSQL servers as regions and as voters.

mod agent;
mod conformance;
mod encrypted;
mod example;
mod failover;
mod fleet;
mod kills;
mod links;
mod locks;
mod observing;
mod planned;
mod pledges;
mod stage;
mod standing;
mod voters;
mod watching;
