//! Remembers which input a folder belongs to and how much of it has been published, so that a killed job goes on.

use std::path::Path;

use resonant_db::{Database, params};

use crate::failure::{Failure, While};
use crate::input::Survey;
use crate::job::GRACE;

const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS published (input TEXT PRIMARY KEY, flights BIGINT NOT NULL)";

/// The journal of one folder.
#[derive(Debug)]
pub(crate) struct Journal {
    database: Database,
    input: String,
}

impl Journal {
    /// Opens the journal of `folder`, or makes one for the surveyed input.
    ///
    /// # Errors
    ///
    /// [`Failure::Input`] when the folder belongs to another input.
    pub(crate) async fn open(folder: &Path, survey: &Survey) -> Result<Self, Failure> {
        let url = format!("sqlite:{}", folder.join("journal.db").display());
        let database = Database::connect(&url).await.doing("opening the journal")?;
        database.write().batch(TABLE).await.doing("making the journal")?;
        let input = format!("{:016x}-{}", survey.fingerprint, survey.flights);
        let known = database.read().query_as("SELECT input FROM published", params![]).await;
        let known: Vec<String> = known.doing("reading the journal")?;
        match known.first() {
            None => {
                let sql = "INSERT INTO published (input, flights) VALUES ($1, 0)";
                database.write().execute(sql, params![input]).await.doing("writing the journal")?;
            }
            Some(known) if *known == input => {}
            Some(_) => {
                let message = "the data folder holds another input; give an empty --data-dir";
                return Err(Failure::Input(format!("{}: {message}", folder.display())));
            }
        }
        Ok(Self { database, input })
    }

    /// How many flights have been published.
    pub(crate) async fn published(&self) -> Result<u64, Failure> {
        let sql = "SELECT flights FROM published WHERE input = $1";
        self.database
            .read()
            .query_one_as(sql, params![self.input])
            .await
            .doing("reading the journal")
    }

    /// Notes that the first `flights` flights are published.
    pub(crate) async fn note(&self, flights: u64) -> Result<(), Failure> {
        let sql = "UPDATE published SET flights = $2 WHERE input = $1";
        let noted = self.database.write().execute(sql, params![self.input, flights as i64]).await;
        noted.doing("writing the journal").map(drop)
    }

    /// Closes it.
    pub(crate) async fn close(self) {
        let _ = self.database.close(GRACE).await;
    }
}
