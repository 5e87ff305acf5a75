//! Hearing what is notified, over lost connections and failovers.

use std::fmt;
use std::time::Duration;

use resonant_common::backoff::Backoff;

use crate::backend::{Access, Listen, Notification, Target};
use crate::replica_set::Role;
use crate::{Error, ErrorKind, Result};

use super::Database;

const PAUSES: Backoff =
    Backoff { initial: Duration::from_millis(50), max: Duration::from_secs(5), factor: 2.0 };

/// What a [`Listener`] hears.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Somebody notified a channel.
    Notification(Notification),
    /// The connection was lost and is there again: what was notified in between is lost. Look up what may have changed.
    Gap,
}

/// Listens on channels of the primary; made by [`Database::listen`].
///
/// It has a connection of its own, outside the pool. A link that has gone silent is noticed within 20 s.
pub struct Listener {
    database: Database,
    channels: Vec<String>,
    ears: Option<Box<dyn Listen>>,
    failures: u32,
}

impl Database {
    /// Listens on channels: hears every notification from now on.
    ///
    /// ```no_run
    /// # async fn example(db: resonant_db::Database) -> resonant_db::Result<()> {
    /// use resonant_db::Event;
    /// let mut listener = db.listen(["prices"]).await?;
    /// loop {
    ///     match listener.next().await? {
    ///         Event::Notification(said) => println!("{}: {}", said.channel, said.payload),
    ///         _ => println!("some may have been missed: look again"),
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `Unsupported` where the engine has no notifications or a pooler does not let them through; `Unavailable` and
    /// `TimedOut` when the primary cannot be reached.
    pub async fn listen<C: Into<String>>(
        &self,
        channels: impl IntoIterator<Item = C>,
    ) -> Result<Listener> {
        let channels = channels.into_iter().map(Into::into).collect();
        let mut listener = Listener { database: self.clone(), channels, ears: None, failures: 0 };
        listener.ears = Some(open(&listener.database, &listener.channels).await?);
        Ok(listener)
    }
}

impl Listener {
    /// The next event. A lost connection is opened again, for as long as it takes.
    ///
    /// # Errors
    ///
    /// `Closed` once the database is closed; what will not go away by waiting, such as a password that is refused. It
    /// may be called again.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost by a dropped future.
    pub async fn next(&mut self) -> Result<Event> {
        if let Some(ears) = &mut self.ears {
            match ears.next().await {
                Ok(notification) => return Ok(Event::Notification(notification)),
                Err(error) => {
                    tracing::warn!(%error, "the listener's connection was lost");
                    self.ears = None;
                }
            }
        }
        loop {
            match open(&self.database, &self.channels).await {
                Ok(ears) => {
                    (self.ears, self.failures) = (Some(ears), 0);
                    tracing::info!("the listener is connected again");
                    return Ok(Event::Gap);
                }
                Err(error) if !error.is_transient() => return Err(error),
                Err(_) => {}
            }
            let pause = PAUSES.wait(self.failures, &mut rand::rng());
            self.failures = self.failures.saturating_add(1);
            tokio::time::sleep(pause).await;
        }
    }
}

/// Not a method: a borrowed listener would have to be `Sync` for these futures to be spawned.
async fn open(database: &Database, channels: &[String]) -> Result<Box<dyn Listen>> {
    let inner = &database.inner;
    inner.set.ready().await;
    let primary = inner.set.write()?;
    let pool = primary.pool(Role::Primary)?;
    if pool.is_closed() {
        return Err(Error::new(ErrorKind::Closed, "listen", "the database is closed"));
    }
    let limit = pool.config().connect_timeout;
    // Only a node that takes writes will do: notifications come from there.
    let target = Target { access: Access::ReadWrite, ..primary.target.clone() };
    let open = inner.backend.listen(&target, channels);
    tokio::time::timeout(limit, open).await.unwrap_or_else(|_| {
        let message = format!("{}: no connection within {limit:?}", target.name);
        Err(Error::new(ErrorKind::TimedOut, "listen", message))
    })
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("channels", &self.channels)
            .field("connected", &self.ears.is_some())
            .finish_non_exhaustive()
    }
}
