//! What has sessions that a token can carry.

use crate::replica_set::{PickSession, Written};
use crate::{Database, ReplicaSet, Session};

/// What has sessions that a token can carry.
pub trait Sessions: Clone + Send + Sync + 'static {
    /// A session; its clones are the same one.
    type Session: Clone + Send + Sync + 'static;

    /// A session that has written nothing.
    fn start(&self) -> Self::Session;

    /// The session that goes on from a token, or `None` when the text is none, or certainly one of another database.
    fn resume(&self, token: &str) -> Option<Self::Session>;

    /// How far a session's writes have come, as text; `None` before the first.
    fn token(session: &Self::Session) -> Option<String>;
}

impl Sessions for Database {
    type Session = Session;

    fn start(&self) -> Session {
        self.session()
    }

    fn resume(&self, token: &str) -> Option<Session> {
        let written = Written::from_token(token).ok()?;
        if self.has_one_node() {
            // It has all that there is. Other processes may know of replicas, so the token is not cleared.
            return Some(self.session());
        }
        self.may_be_of(&written).then(|| Session::resumed(self.clone(), written))
    }

    fn token(session: &Session) -> Option<String> {
        session.token()
    }
}

impl<P: Clone + Send + Sync + 'static> Sessions for ReplicaSet<P> {
    type Session = PickSession<P>;

    fn start(&self) -> PickSession<P> {
        self.session()
    }

    fn resume(&self, token: &str) -> Option<PickSession<P>> {
        let written = Written::from_token(token).ok()?;
        if self.may_be_of(&written) { self.session_from(token).ok() } else { None }
    }

    fn token(session: &PickSession<P>) -> Option<String> {
        session.token()
    }
}
