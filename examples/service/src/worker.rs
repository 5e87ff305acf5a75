//! The role `worker`: does the tasks, and writes what came of them in batches.

use resonant_sdk::app::{self, Resonant};
use resonant_sdk::db::{params, row};
use resonant_sdk::queue::Delivery;

use crate::model::{Progress, TASKS, Task};

pub(crate) async fn start(app: &Resonant) -> app::Result<()> {
    let tasks = app.queue::<Task>(TASKS).await?;
    let db = app.database()?.clone();
    let finished = app.batch("finished", {
        let db = db.clone();
        async move |done: Vec<Progress>| {
            let sql = "UPDATE tasks SET state = $1, result = $2 WHERE id = $3";
            let rows = done.iter().map(|it| row![&it.state, it.result.as_deref(), &it.id]);
            db.write().execute_many(sql, rows).await.map(drop)
        }
    })?;
    // A task that comes a second time, because its worker died before it had said that it is done, is done again.
    let handler = async move |delivery: Delivery<Task>| {
        let task = delivery.message();
        let sql = "UPDATE tasks SET state = 'running' WHERE id = $1 AND state = 'queued'";
        db.write().execute(sql, params![&task.id]).await?;
        let result = Some(work(task));
        finished.submit(Progress { id: task.id.clone(), state: "done".into(), result }).await?;
        Ok(())
    };
    app.workers(TASKS, move || tasks.worker(handler.clone()).start()).await?;
    Ok(())
}

/// What an agent would do.
fn work(task: &Task) -> String {
    format!("{} letters", task.goal.chars().filter(|letter| letter.is_alphabetic()).count())
}
