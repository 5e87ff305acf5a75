//! Reading what one has written, on shards with replicas.

use std::fmt;

use serde::de::DeserializeOwned;

use super::database::{ShardedDatabase, only};
use super::gather::Ask;
use super::stream::ShardedRowStream;
use super::transaction::ShardTransaction;
use crate::{Error, ErrorKind, Param, Result, Rows, Session, ToParam};

/// A session that reads what it has written, on every shard; made by [`ShardedDatabase::session`].
///
/// It is a [`Session`] for each shard: a read goes to a replica of a shard only when that has come as far as the session's
/// writes to this shard. Clones are the same session.
///
/// # Cancel safety
///
/// As of [`Session`].
#[derive(Clone)]
pub struct ShardedSession {
    database: ShardedDatabase,
    sessions: Vec<Session>,
}

impl ShardedDatabase {
    /// A session that reads what it writes, on every shard.
    pub fn session(&self) -> ShardedSession {
        let sessions = self.shards().map(|(_, database)| database.session()).collect();
        ShardedSession { database: self.clone(), sessions }
    }

    /// The session that [`ShardedSession::token`] came from, also in another process with the same shards.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the text is no such token.
    pub fn session_from(&self, token: &str) -> Result<ShardedSession> {
        let unclear = || Error::new(ErrorKind::Config, "session", "the text is no session token");
        let mut session = self.session();
        for part in token.split(';').filter(|part| !part.is_empty()) {
            let (shard, token) = part.split_once('=').ok_or_else(unclear)?;
            let at: usize = shard.parse().map_err(|_| unclear())?;
            let (_, database) = self.shards().nth(at).ok_or_else(unclear)?;
            *session.sessions.get_mut(at).ok_or_else(unclear)? = database.session_from(token)?;
        }
        Ok(session)
    }
}

impl ShardedSession {
    /// As [`ShardedDatabase::query`].
    ///
    /// # Errors
    ///
    /// As [`ShardedDatabase::query`].
    pub async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Rows> {
        self.database.by_key(self.ask("query", sql, params)).await
    }

    /// As [`ShardedDatabase::query_all`].
    ///
    /// # Errors
    ///
    /// As [`ShardedDatabase::query_all`].
    pub async fn query_all(&self, sql: &str, params: &[Param<'_>]) -> Result<Rows> {
        self.database.everywhere(self.ask("query_all", sql, params)).await
    }

    /// As [`ShardedDatabase::stream`].
    ///
    /// # Errors
    ///
    /// As [`ShardedDatabase::stream`].
    pub async fn stream(&self, sql: &str, params: &[Param<'_>]) -> Result<ShardedRowStream> {
        self.database.streamed(self.ask("stream", sql, params), false).await
    }

    /// As [`ShardedDatabase::stream_all`].
    ///
    /// # Errors
    ///
    /// As [`ShardedDatabase::stream_all`].
    pub async fn stream_all(&self, sql: &str, params: &[Param<'_>]) -> Result<ShardedRowStream> {
        self.database.streamed(self.ask("stream_all", sql, params), true).await
    }

    /// As [`ShardedDatabase::query_as`].
    ///
    /// # Errors
    ///
    /// As [`ShardedDatabase::query_as`].
    pub async fn query_as<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<T>> {
        self.query(sql, params).await?.decode()
    }

    /// As [`ShardedDatabase::query_opt_as`].
    ///
    /// # Errors
    ///
    /// As [`ShardedDatabase::query_opt_as`].
    pub async fn query_opt_as<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Option<T>> {
        let rows = self.query(sql, params).await?;
        only("query_opt_as", &rows)?.map(|row| row.decode()).transpose()
    }

    /// As [`ShardedDatabase::execute`].
    ///
    /// # Errors
    ///
    /// As [`ShardedDatabase::execute`].
    pub async fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        self.database.written(self.ask("execute", sql, params)).await
    }

    /// As [`ShardedDatabase::transaction`].
    ///
    /// # Errors
    ///
    /// As [`ShardedDatabase::transaction`].
    pub async fn transaction<T, F>(&self, key: impl ToParam, work: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut ShardTransaction<'_, '_>) -> Result<T> + Clone,
    {
        self.database.enclose(key.to_param(), Some(&self.sessions), work).await
    }

    /// How far the session's writes have come on each shard, as text for [`ShardedDatabase::session_from`]; `None` before
    /// the first write. It names shards by their number in the order of declaration.
    pub fn token(&self) -> Option<String> {
        let tokens = self.sessions.iter().enumerate();
        let tokens = tokens.filter_map(|(at, session)| Some(format!("{at}={}", session.token()?)));
        let tokens: Vec<String> = tokens.collect();
        (!tokens.is_empty()).then(|| tokens.join(";"))
    }

    fn ask<'a>(
        &'a self,
        operation: &'static str,
        sql: &'a str,
        params: &'a [Param<'a>],
    ) -> Ask<'a> {
        Ask { operation, sql, params, sessions: Some(&self.sessions) }
    }
}

impl fmt::Debug for ShardedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ShardedSession").field(&self.sessions).finish()
    }
}
