//! Reads and checkouts on a real PostgreSQL, beside the driver alone and the pools over it.

mod peers;
mod reads;
mod tap;
mod twins;

use super::Area;
use crate::Outcome;
use crate::harness::{Case, runtime};
use crate::report::Report;

use self::peers::{Lenders, Place, Readers};
use self::twins::Twins;

pub(crate) const AREA: Area = Area {
    name: "db",
    about: "`Database` reads one row of 10,000 by its key, on a PostgreSQL that the bench starts on the same machine; pools of \
            16 connections each, statements prepared. deadpool-postgres prepares through its cache, sqlx as it does by \
            itself (without its ping at checkout), bb8-postgres, which has no cache, runs the statement unprepared in one \
            trip and does not test at checkout, tokio-postgres is the driver alone: one prepared connection for one task, four that all \
            tasks share for many; with one task it and `Database` take turns of 16 reads each within the same moment, as much depends on \
            whether that task shares a core with the server's process. `Database` has its lanes, up to four shared connections for reading, beside the pool. `db.slow_read` \
            sleeps 5 ms on the server, `db.rtt_read` has a proxy that delays each direction by 0.5 ms. `db.checkout` lends and \
            gives back without asking the server anything. `db.tap` is the driver with and without the tap that `Database` has on each \
            of its connections; for each message it is measured over a recorded stream in memory.",
    peers: &["tokio-postgres", "deadpool-postgres", "bb8-postgres", "sqlx"],
    run,
};

const ONE_ROW: &str = "SELECT id, name, score FROM item WHERE id = $1";
const SLOW: &str = "SELECT id, name, score FROM item, pg_sleep(0.005) WHERE id = $1";

fn run(report: &mut Report) -> Outcome {
    let runtime = runtime()?;
    let place = runtime.block_on(Place::open())?;
    let lenders = runtime.block_on(Lenders::open(&place))?;
    for (tasks, name, about) in [
        (1, "db.checkout.vs_best.1", "checkout, 1 task"),
        (16, "db.checkout.vs_best.16", "checkout, 16 tasks"),
        (64, "db.checkout.vs_best.64", "checkout, 64 tasks"),
        (256, "db.checkout.vs_best.256", "checkout, 256 tasks"),
    ] {
        Case::new(name, about, "checkouts")
            .goal(1.0)
            .run("ConnectionPool", || Ok(lenders.ours(&runtime, tasks)))
            .run("deadpool-postgres", || Ok(lenders.deadpool(&runtime, tasks)))
            .run("bb8-postgres", || Ok(lenders.bb8(&runtime, tasks)))
            .measure(report)?;
    }
    let readers = runtime.block_on(Readers::open(&place, place.url(), ONE_ROW))?;
    let twins = Twins::new(&readers, &runtime);
    Case::new("db.one_task.vs_raw", "one row, 1 task", "reads")
        .goal_against("tokio-postgres", 0.9)
        .run("Database", || Ok(twins.ours()))
        .run("tokio-postgres", || Ok(twins.raw()))
        .run("deadpool-postgres", || Ok(readers.deadpool(&runtime, 1)))
        .run("bb8-postgres", || Ok(readers.bb8(&runtime, 1)))
        .run("sqlx", || Ok(readers.sqlx(&runtime, 1)))
        .measure(report)?;
    for (tasks, names, goal) in [
        (
            64,
            [
                "db.shared_read.vs_deadpool.64",
                "db.shared_read.vs_sqlx.64",
                "db.shared_read.vs_raw.64",
            ],
            1.6,
        ),
        (
            256,
            [
                "db.shared_read.vs_deadpool.256",
                "db.shared_read.vs_sqlx.256",
                "db.shared_read.vs_raw.256",
            ],
            1.8,
        ),
    ] {
        let about = |peer| format!("one row, {tasks} tasks, beside {peer}");
        Case::new(names[0], about("deadpool-postgres"), "reads")
            .goal_against("deadpool-postgres", goal)
            .run("Database", || Ok(readers.ours(&runtime, tasks)))
            .run("deadpool-postgres", || Ok(readers.deadpool(&runtime, tasks)))
            .run("bb8-postgres", || Ok(readers.bb8(&runtime, tasks)))
            .measure(report)?;
        Case::new(names[1], about("sqlx"), "reads")
            .goal_against("sqlx", 2.5)
            .run("Database", || Ok(readers.ours(&runtime, tasks)))
            .run("sqlx", || Ok(readers.sqlx(&runtime, tasks)))
            .measure(report)?;
        Case::new(names[2], about("tokio-postgres"), "reads")
            .goal_against("tokio-postgres, 4 shared", 0.9)
            .run("Database", || Ok(readers.ours(&runtime, tasks)))
            .run("tokio-postgres, 4 shared", || Ok(readers.raw(&runtime, tasks, 4)))
            .measure(report)?;
    }
    tap::run(&runtime, &place, ONE_ROW, report)?;
    let far = runtime.block_on(Readers::open(&place, place.far_url(), ONE_ROW))?;
    Case::new("db.rtt_read.vs_deadpool.64", "one row, 1 ms away, 64 tasks", "reads")
        .goal_against("deadpool-postgres", 0.95)
        .run("Database", || Ok(far.ours(&runtime, 64)))
        .run("deadpool-postgres", || Ok(far.deadpool(&runtime, 64)))
        .measure(report)?;
    drop(far);
    let slow = runtime.block_on(Readers::open(&place, place.url(), SLOW))?;
    Case::new("db.slow_read.vs_deadpool.64", "one row and 5 ms of sleep, 64 tasks", "reads")
        .goal_against("deadpool-postgres", 0.95)
        .run("Database", || Ok(slow.ours(&runtime, 64)))
        .run("deadpool-postgres", || Ok(slow.deadpool(&runtime, 64)))
        .measure(report)?;
    Ok(())
}
