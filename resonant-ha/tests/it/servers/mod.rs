//! Real PostgreSQL servers as regions and as voters.

mod agent;
mod example;
mod failover;
mod locks;
mod observing;
mod planned;
mod pledges;
mod stage;
mod standing;
mod voters;
mod watching;
