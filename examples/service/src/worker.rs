//! The role `worker`: does the tasks, and writes what came of them in batches.

use resonant_sdk::app::{self, Resonant};
use resonant_sdk::db::row;
use resonant_sdk::queue::Delivery;

use crate::model::{TASKS, Task};

pub(crate) async fn start(app: &Resonant) -> app::Result<()> {
    let tasks = app.queue::<Task>(TASKS).await?;
    let db = app.database()?.clone();
    let finished = app.batch("finished", {
        let db = db.clone();
        async move |done: Vec<(Task, String)>| {
            let sql = "UPDATE tasks SET state = 'done', result = $1 WHERE session = $2 AND id = $3";
            let rows = done.iter().map(|(task, result)| row![result, &task.session, &task.id]);
            db.write().execute_many(sql, rows).await.map(drop)
        }
    })?;
    // A task may come twice: its client was not sure and asked again, or its worker died before it had said that it is done.
    // Tasks of one agent come one after the other, so its row says whether it was done.
    let handler = async move |delivery: Delivery<Task>| {
        let task = delivery.message();
        let sql = "INSERT INTO tasks (session, id, agent_id, goal, state)
                   VALUES ($1, $2, $3, $4, 'running')
                   ON CONFLICT (session, id) DO UPDATE SET state = 'running' WHERE tasks.state <> 'done'";
        let row = row![&task.session, &task.id, &task.agent_id, &task.goal];
        if db.write().execute(sql, &row).await? > 0 {
            finished.submit((task.clone(), work(task))).await?;
        }
        Ok(())
    };
    app.workers(TASKS, move || tasks.worker(handler.clone()).start()).await?;
    Ok(())
}

/// What an agent would do.
fn work(task: &Task) -> String {
    format!("{} letters", task.goal.chars().filter(|letter| letter.is_alphabetic()).count())
}
