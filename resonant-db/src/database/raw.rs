//! The door to the driver.

use std::panic::Location;

use tokio_postgres::Client;

use crate::backend::postgres::{Native, NativeOutcome};
use crate::{Error, ErrorKind, Result};

use super::write::Write;

impl Write<'_> {
    /// Lends a connection to the primary as the driver's own client, for what has no method here.
    ///
    /// The connection is reset afterwards, whatever was done with it; a transaction that was left open is rolled back. The
    /// session's limits hold, retries and redaction do not: the driver writes parameters into its log at the level
    /// `debug`. Statements prepared there are gone afterwards.
    ///
    /// ```no_run
    /// # async fn example(db: resonant_db::Database) -> resonant_db::Result<()> {
    /// let found = db.write().with_client(async |client| client.query("SELECT 1", &[]).await).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What `work` answered, with the kind its code stands for and the driver's error as the source; `Unsupported` for
    /// another engine than PostgreSQL.
    ///
    /// # Cancel safety
    ///
    /// A dropped future stops what runs, as everywhere.
    #[track_caller]
    pub fn with_client<T, F>(self, work: F) -> impl Future<Output = Result<T>>
    where
        F: AsyncFnOnce(&Client) -> NativeOutcome<T>,
    {
        let site = Location::caller();
        async move {
            let mut lease = self.lease(site).await?;
            let result = match Native::of(&mut *lease) {
                Some(native) => native.lend(work).await,
                None => {
                    let message = "this engine has no tokio_postgres client";
                    Err(Error::new(ErrorKind::Unsupported, "with_client", message))
                }
            };
            self.done(&mut lease, result).await
        }
    }
}
