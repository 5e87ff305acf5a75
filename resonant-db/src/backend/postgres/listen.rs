//! A session that only listens.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::backend::{Listen, Notification, Target};
use crate::{Error, ErrorKind, Result};

use super::Node;
use super::error::{Place, translate};
use super::login::Login;
use super::session::Session;

/// How many notifications wait here for somebody to take them; then the server is held back.
const HEARD: usize = 1024;
/// How long nothing may be heard before the server is asked whether it is still there, and how long it may take to answer.
const QUIET: Duration = Duration::from_secs(15);
const ANSWER: Duration = Duration::from_secs(5);

pub(super) struct Ears {
    session: Session,
    heard: mpsc::Receiver<Notification>,
    node: Arc<str>,
    asked: Instant,
}

impl Ears {
    pub(super) async fn open(
        node: &Arc<Node>,
        target: &Target,
        channels: &[String],
    ) -> Result<Self> {
        let (tell, heard) = mpsc::channel(HEARD);
        let login = Login { heard: Some(&tell), ..Login::default() };
        let session = Session::open(node, target, login).await?;
        if session.facts.is_pooled() {
            let message = format!(
                "{}: a pooler stands in between, and notifications do not come through it; name the server itself",
                target.name
            );
            return Err(Error::new(ErrorKind::Unsupported, "listen", message));
        }
        let mut sql = String::new();
        for channel in channels {
            sql.push_str(&format!("LISTEN \"{}\"; ", channel.replace('"', "\"\"")));
        }
        if let Err(trouble) = session.within(session.client.batch_execute(&sql)).await {
            let place = Place {
                operation: "listen",
                node: &target.name,
                writes: false,
                in_doubt: false,
                cause: &session.facts.cause(),
            };
            return Err(translate(place, &trouble));
        }
        Ok(Self { session, heard, node: target.name.clone(), asked: Instant::now() })
    }

    fn lost(&self) -> Error {
        let cause =
            self.session.facts.cause().unwrap_or_else(|| "the server does not answer".into());
        let message = format!("{}: the connection was lost ({cause})", self.node);
        Error::new(ErrorKind::Unavailable, "listen", message)
    }
}

#[async_trait]
impl Listen for Ears {
    async fn next(&mut self) -> Result<Notification> {
        loop {
            match timeout_at(self.asked + QUIET, self.heard.recv()).await {
                Ok(Some(notification)) => {
                    self.asked = Instant::now();
                    return Ok(notification);
                }
                Ok(None) => return Err(self.lost()),
                Err(_) => {
                    // A link that is gone may stay silent for ever.
                    let alive = timeout(ANSWER, self.session.client.check_connection()).await;
                    if !matches!(alive, Ok(Ok(()))) && self.heard.is_empty() {
                        return Err(self.lost());
                    }
                    self.asked = Instant::now();
                }
            }
        }
    }
}
