//! The same service on PostgreSQL, Redis and RabbitMQ.

mod full_load;
