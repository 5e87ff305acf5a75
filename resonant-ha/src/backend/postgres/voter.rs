//! A voter that is one row of a PostgreSQL server of its own.

use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::client::{Link, is, run, told};
use crate::error::{Error, ErrorKind, Result};
use crate::voter::{Ballot, Stored, Vote, Voter};

/// A vote that a crash takes back is two votes, whatever the database's or the role's settings say.
const DURABLE: &str = "SET synchronous_commit = on";

const CREATE: &str = "CREATE TABLE IF NOT EXISTS resonant_ha_voter (name text PRIMARY KEY, term bigint NOT NULL, \
     owner text NOT NULL, expires timestamptz, record_term bigint, record_version bigint, record text)";

const READ: &str = "SELECT term, owner, \
     greatest(0, extract(epoch FROM expires - clock_timestamp()) * 1e6)::bigint, \
     record_term, record_version, record FROM resonant_ha_voter WHERE name = $1";

const GRANT: &str = "INSERT INTO resonant_ha_voter AS v (name, term, owner, expires) \
     VALUES ($1, $2, $3, clock_timestamp() + $4::bigint * interval '1 microsecond') \
     ON CONFLICT (name) DO UPDATE SET term = excluded.term, owner = excluded.owner, \
     expires = clock_timestamp() + $4::bigint * interval '1 microsecond' \
     WHERE v.term < excluded.term AND (v.expires IS NULL OR v.expires <= clock_timestamp())";

const RENEW: &str = "UPDATE resonant_ha_voter \
     SET expires = clock_timestamp() + $4::bigint * interval '1 microsecond' \
     WHERE name = $1 AND term = $2 AND owner = $3 AND expires > clock_timestamp()";

const RELEASE: &str = "UPDATE resonant_ha_voter SET expires = NULL \
     WHERE name = $1 AND term = $2 AND owner = $3 AND expires > clock_timestamp()";

const WRITE: &str = "UPDATE resonant_ha_voter SET record_term = $2, record_version = $4, record = $5 \
     WHERE name = $1 AND term = $2 AND owner = $3 AND expires > clock_timestamp() \
     AND (record_term IS NULL OR (record_term, record_version) <= ($2, $4))";

/// A voter that is one row of a PostgreSQL server, by that server's clock.
///
/// The server must not be one of those that are failed over, nor have standbys that could be promoted without having
/// the last vote: a term that falls is a vote forgotten.
#[derive(Debug)]
pub struct PostgresVoter {
    link: Link,
    domain: Option<String>,
}

impl PostgresVoter {
    /// A voter on this server, `postgresql://user:password@host:5432/database`.
    pub fn new(url: impl Into<String>) -> Self {
        Self { link: Link::with_first(url.into(), DURABLE), domain: None }
    }

    /// The region the server would fail with.
    #[must_use]
    pub fn in_region(mut self, region: impl Into<String>) -> Self {
        self.domain = Some(region.into());
        self
    }

    /// Creates the table `resonant_ha_voter` where it is missing.
    ///
    /// # Errors
    ///
    /// `Unavailable`; `Failed` when the role may not create it.
    pub async fn create_table(&self) -> Result<()> {
        let client = self.link.take("create_table").await?;
        run(&client, "create_table", &[CREATE]).await?;
        self.link.keep(client);
        Ok(())
    }

    async fn cast_on(
        &self,
        client: &Client,
        name: &str,
        ballot: Ballot,
    ) -> Result<Vote, tokio_postgres::Error> {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let micros = |ttl: Duration| i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
        let run =
            async |sql: &str, params: &[&(dyn ToSql + Sync)]| client.execute(sql, params).await;
        let changed = match ballot {
            Ballot::Read => 1,
            Ballot::Grant { term, owner, ttl } => {
                run(GRANT, &[&name, &number(term), &owner, &micros(ttl)]).await?
            }
            Ballot::Renew { term, owner, ttl } => {
                run(RENEW, &[&name, &number(term), &owner, &micros(ttl)]).await?
            }
            Ballot::Release { term, owner } => {
                run(RELEASE, &[&name, &number(term), &owner]).await?
            }
            Ballot::Write { owner, record } => {
                let (term, version) = (number(record.term), number(record.version));
                run(WRITE, &[&name, &term, &owner, &version, &&*record.value]).await?
            }
        };
        let Some(row) = client.query_opt(READ, &[&name]).await? else {
            return Ok(Vote { done: changed > 0, ..Vote::default() });
        };
        let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
        let record: Option<(i64, i64, String)> = row
            .get::<_, Option<i64>>(3)
            .zip(row.get::<_, Option<i64>>(4))
            .zip(row.get(5))
            .map(|((term, version), value)| (term, version, value));
        Ok(Vote {
            done: changed > 0,
            term: unsigned(row.get(0)),
            owner: row.get(1),
            remaining: Duration::from_micros(unsigned(row.get::<_, Option<i64>>(2).unwrap_or(0))),
            record: record.map(|(term, version, value)| Stored {
                term: unsigned(term),
                version: unsigned(version),
                value: value.into(),
            }),
        })
    }
}

#[async_trait]
impl Voter for PostgresVoter {
    async fn cast(&self, name: &str, ballot: Ballot) -> Result<Vote> {
        let client = self.link.take("vote").await?;
        match self.cast_on(&client, name, ballot).await {
            Ok(vote) => {
                self.link.keep(client);
                Ok(vote)
            }
            Err(error) if is(&error, &SqlState::UNDEFINED_TABLE) => {
                let message = "the table resonant_ha_voter is missing; call create_table() once";
                Err(Error::new(ErrorKind::Config, "vote", message).with_source(error))
            }
            Err(error) => Err(told("vote", error)),
        }
    }

    fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }
}
