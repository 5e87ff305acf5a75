//! The driver's own client, lent out.

use tokio_postgres::Client;

use crate::Result;
use crate::backend::Connection;

use super::connection::PostgresConnection;

/// What work with the driver's client answers.
pub type NativeOutcome<T> = std::result::Result<T, tokio_postgres::Error>;

/// A connection as one of PostgreSQL.
pub(crate) struct Native<'a>(&'a mut PostgresConnection);

impl<'a> Native<'a> {
    pub(crate) fn of(connection: &'a mut dyn Connection) -> Option<Self> {
        connection.native()?.downcast_mut().map(Self)
    }

    /// Lends the client. Whatever is done with it, the session is reset before anybody else gets it.
    pub(crate) async fn lend<T, F>(self, work: F) -> Result<T>
    where
        F: AsyncFnOnce(&Client) -> NativeOutcome<T>,
    {
        let connection = self.0;
        let mark = connection.enter_guarded("with_client")?;
        connection.session.facts.touch();
        let result = work(&connection.session.client).await.map_err(Into::into);
        connection.leave("with_client", mark, result).await
    }
}
