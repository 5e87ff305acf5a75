//! The files in `deploy/`: each by itself, and all of them together.
//!
//! What they promise each other (a pod is given more time to end than the service takes, all pools together stay below what
//! the servers allow) no schema can say. It is said here, once for each rule, and for each rule a file is broken on purpose to
//! see that it is noticed.

mod documents;
mod files;
mod kustomize;
mod model;
mod nginx;
mod routes;
mod rules;
mod schema;
mod seeds;
mod servers;
mod settings;
mod terraform;

use self::files::Files;
