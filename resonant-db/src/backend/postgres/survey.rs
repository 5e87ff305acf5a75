//! What this server, or the pooler in front of it, cannot do.

use crate::Result;
use crate::backend::{Capabilities, Connection, Survey};

use super::connection::PostgresConnection;

/// The connections that are left for the role after those that are reserved for others.
const ALLOWED: &str = "\
    SELECT least(\
        current_setting('max_connections')::int8 - current_setting('superuser_reserved_connections')::int8 \
            - coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::int8, \
        (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user), \
        (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()))";

impl PostgresConnection {
    pub(super) async fn look_around(&mut self, declared: Capabilities) -> Result<Survey> {
        let pooled = self.is_pooled();
        let found = Capabilities {
            positions: declared.positions && self.position().await?.is_some(),
            reports_role: declared.reports_role && self.reports_role(),
            // The session that listens would be another one after every statement.
            notifications: declared.notifications && !pooled,
            ..declared
        };
        let allowed = match pooled {
            // How many connections the pooler allows is its own matter.
            true => None,
            false => self.query(ALLOWED, &[]).await?.first(),
        };
        let allowed = allowed.and_then(|row| row.get::<Option<i64>>(0).ok().flatten());
        Ok(Survey::new(found).with_connections(allowed.and_then(|count| count.try_into().ok())))
    }
}
