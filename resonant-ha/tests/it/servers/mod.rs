//! Real PostgreSQL servers as regions and as voters.

mod failover;
mod observing;
mod planned;
mod stage;
mod voters;
mod watching;
