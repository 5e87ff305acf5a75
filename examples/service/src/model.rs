//! What is stored and what goes through the queue.

use resonant_sdk::db::{self, Database, ShardedDatabase};
use serde::{Deserialize, Serialize};

/// The queue of the scaling guide.
pub(crate) const TASKS: &str = "session-tasks";

/// An agent of an organisation. Its row lives on its organisation's shard.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Agent {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// A message of the queue: tasks of one agent are done in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) session: String,
    pub(crate) id: String,
    pub(crate) agent_id: String,
    pub(crate) goal: String,
}

/// How far a task is, as its session sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) id: String,
    pub(crate) state: State,
    pub(crate) result: Option<String>,
}

/// In the order in which a task goes through them.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Queued,
    Running,
    Done,
}

/// Makes the tables, which a service in earnest leaves to its migrations.
pub(crate) async fn create_tables(db: &Database, agents: &ShardedDatabase) -> db::Result<()> {
    let tasks = "CREATE TABLE IF NOT EXISTS tasks (
        session TEXT NOT NULL, id TEXT NOT NULL, agent_id TEXT NOT NULL, goal TEXT NOT NULL,
        state TEXT NOT NULL, result TEXT, PRIMARY KEY (session, id))";
    let of_agents = "CREATE TABLE IF NOT EXISTS agents (
        org_id TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (org_id, id))";
    db.write().batch(tasks).await?;
    agents.on_all(of_agents).await
}
