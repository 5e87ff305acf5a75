//! Hands out what an owner took.

use std::sync::Arc;

use async_trait::async_trait;

use super::owner::Owner;
use crate::backend::{Feed, Fetch, Fetched};
use crate::error::{Error, ErrorKind, Result, closed};

/// Hands out what an owner took. Ends the opening when it is dropped.
#[derive(Debug)]
pub(super) struct RabbitFeed(pub(super) Arc<Owner>);

impl Drop for RabbitFeed {
    fn drop(&mut self) {
        self.0.end.cancel();
    }
}

#[async_trait]
impl Feed for RabbitFeed {
    async fn fetch(&self, fetch: Fetch) -> Result<Fetched> {
        let mut bell = self.0.bell.subscribe();
        loop {
            bell.mark_unchanged();
            if let Some(error) = self.0.over("fetch") {
                return Err(error);
            }
            if fetch.until.is_some() {
                let text = "RabbitMQ hands out every message once and reads none again";
                return Err(Error::new(ErrorKind::Unsupported, "fetch", text));
            }
            if let Some(fetched) = self.0.state().give(fetch) {
                return Ok(fetched);
            }
            if bell.changed().await.is_err() {
                return Err(closed("fetch"));
            }
        }
    }
}
