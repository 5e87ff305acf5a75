//! [`ShardedDatabase`]: a statement goes to the shards it is proven to touch, or is refused.
//!
//! Routing is sound by construction: the router parses a statement, proves which keys its rows can have, and refuses what
//! it cannot prove, with the reason and a rewrite. Unknown syntax is refused, never ignored. Tables are declared with
//! their key and its type, or learned from the catalogue; undeclared tables, views and functions off a list are refused.
//!
//! On PostgreSQL each shard's catalogue is compared with what is declared before its first statement and after
//! [`ShardedDatabase::on_all`]. What other programs change in the meantime is not seen until then.
//!
//! Buckets move from shard to shard while all this goes on, by a `Mover`: that is how a shard is added.

mod array;
mod builder;
mod bulk;
mod catalogue;
mod config;
mod copy;
mod database;
mod function;
mod gather;
#[cfg(feature = "postgres")]
mod grow;
mod guard;
mod inspect;
mod key;
mod live;
mod merge;
mod meters;
mod migrate;
mod refusal;
mod route;
mod router;
mod schema;
mod session;
mod shard;
mod single;
mod spread;
mod sql;
mod stream;
mod transaction;

pub use self::builder::ShardedDatabaseBuilder;
pub use self::config::{FunctionName, ShardConfig, ShardedConfig, TableConfig};
pub use self::copy::CopyReport;
pub use self::database::ShardedDatabase;
pub use self::function::{
    BUCKETS, BucketMap, BucketMove, BucketPlan, Directory, ShardBy, ShardFunction, postgres_hash,
};
pub use self::gather::{MissingShard, Partial};
#[cfg(feature = "postgres")]
pub use self::grow::{MoveEvent, MoveReport, MoveState, Mover};
pub use self::key::{KeyType, ShardKey};
pub use self::migrate::{
    Drift, MigrationEvent, MigrationReport, Migrations, Migrator, ShardMigrations,
};
pub use self::route::Access;
pub use self::router::{Route, RouteExplanation, RouteKind, RoutePlan, ShardRouter};
pub use self::session::ShardedSession;
pub use self::stream::ShardedRowStream;
pub use self::transaction::ShardTransaction;
