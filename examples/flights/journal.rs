//! Remembers which input a place belongs to and how much of it has been published, so that a killed job goes on.

use resonant_db::{Database, params};

use crate::failure::{Failure, While};
use crate::input::Survey;
use crate::patience::patiently;

const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS published (input TEXT PRIMARY KEY, flights BIGINT NOT NULL)";

/// The journal of one place.
#[derive(Debug)]
pub(crate) struct Journal {
    database: Database,
    input: String,
}

impl Journal {
    /// Opens the journal in `database`, or makes one for the surveyed input.
    ///
    /// # Errors
    ///
    /// [`Failure::Input`] when another input is stored there.
    pub(crate) async fn open(database: &Database, survey: &Survey) -> Result<Self, Failure> {
        let database = database.clone();
        database.write().batch(TABLE).await.doing("making the journal")?;
        let input = format!("{:016x}-{}", survey.fingerprint, survey.flights);
        let known = database.write().query_as("SELECT input FROM published", params![]).await;
        let known: Vec<String> = known.doing("reading the journal")?;
        match known.first() {
            None => {
                let sql = "INSERT INTO published (input, flights) VALUES ($1, 0)";
                database.write().execute(sql, params![input]).await.doing("writing the journal")?;
            }
            Some(known) if *known == input => {}
            Some(_) => {
                let message =
                    "another input is stored there; give an empty --data-dir, or empty shards";
                return Err(Failure::Input(message.into()));
            }
        }
        Ok(Self { database, input })
    }

    /// How many flights have been published.
    pub(crate) async fn published(&self) -> Result<u64, Failure> {
        let sql = "SELECT flights FROM published WHERE input = $1";
        let read = self.database.write().query_one_as(sql, params![self.input]).await;
        read.doing("reading the journal")
    }

    /// Notes that the first `flights` flights are published.
    pub(crate) async fn note(&self, flights: u64) -> Result<(), Failure> {
        let sql = "UPDATE published SET flights = $2 WHERE input = $1";
        let noted = patiently(async || {
            self.database.write().execute(sql, params![self.input, flights as i64]).await
        });
        noted.await.doing("writing the journal").map(drop)
    }
}
