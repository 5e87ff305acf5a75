//! Database with read replicas, ShardedDatabase and ConnectionPool over one small backend trait.

pub mod backend;
mod database;
mod error;
mod param;
pub mod pool;
mod row;
#[cfg(feature = "sharding")]
pub mod sharding;

pub use self::database::{
    Database, DatabaseBuilder, DatabaseConfig, DatabaseStatus, NodeStatus, Read, ReadStrategy,
    Role, Session, Transaction, TransactionOptions, Write,
};
pub use self::error::{Error, ErrorKind, Result};
pub use self::param::{Param, ToParam};
pub use self::pool::{ConnectionPool, PoolConfig};
pub use self::row::{ColumnIndex, FromValue, Row, Rows, RowsIter, ValueRef};
#[cfg(feature = "sharding")]
pub use self::sharding::{KeyType, ShardFunction, ShardedDatabase};
