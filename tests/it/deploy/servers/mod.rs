//! With the programs themselves: nginx, PgBouncer, promtool, and the validator of Kubernetes' schemas.

mod kubernetes;
mod nginx;
mod pgbouncer;
mod promtool;
