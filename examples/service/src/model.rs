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
    pub(crate) id: String,
    pub(crate) agent_id: String,
    pub(crate) goal: String,
}

/// How far a task is, as its session sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) id: String,
    /// `queued`, `running` or `done`.
    pub(crate) state: String,
    pub(crate) result: Option<String>,
}

/// Makes the tables, which a service in earnest leaves to its migrations.
pub(crate) async fn create_tables(db: &Database, agents: &ShardedDatabase) -> db::Result<()> {
    let tasks = "CREATE TABLE IF NOT EXISTS tasks (
        id TEXT PRIMARY KEY, session TEXT NOT NULL, agent_id TEXT NOT NULL, goal TEXT NOT NULL,
        state TEXT NOT NULL, result TEXT);
        CREATE INDEX IF NOT EXISTS tasks_of_session ON tasks (session);";
    let of_agents = "CREATE TABLE IF NOT EXISTS agents (
        org_id TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (org_id, id))";
    // Of several instances that start at once, all but one may be refused; the second time they find the tables.
    if db.write().batch(tasks).await.is_err() {
        db.write().batch(tasks).await?;
    }
    if agents.on_all(of_agents).await.is_err() {
        agents.on_all(of_agents).await?;
    }
    Ok(())
}
