//! Database with read replicas, ShardedDatabase and ConnectionPool over one small backend trait.

mod error;
mod param;

pub use self::error::{Error, ErrorKind, Result};
pub use self::param::{Param, ToParam};
