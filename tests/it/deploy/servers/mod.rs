//! With the programs themselves: nginx, PgBouncer, Redis, RabbitMQ, promtool, and the validator of Kubernetes' schemas.

mod kubernetes;
mod nginx;
mod pgbouncer;
mod promtool;
mod stores;
