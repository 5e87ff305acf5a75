//! Those who change tables, begin moves of their own or abuse triggers while buckets move.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use resonant_db::sharding::{MoveEvent, MoveState};
use resonant_db::{ErrorKind, params};

use super::super::until;
use super::{at_home, few, fill, nothing_left, orgs_of, process, run_until, three};

/// Awaits something within a listener: the mover does nothing meanwhile.
pub(super) fn at_once<T>(work: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_is_added_while_groups_switch_keeps_its_values() {
    let held = Arc::new(three().await);
    let db = process(&held, 2).await;
    fill(&db, 40, 4).await;
    let plan = few(&db, 40).await;
    let (shards, done) = (Arc::clone(&held), AtomicBool::new(false));
    let mover = db.mover().group_rows(1).on_event(move |event| {
        if matches!(event, MoveEvent::Switched { .. }) && !done.swap(true, Ordering::Relaxed) {
            at_once(async {
                for shard in shards.iter() {
                    shard.sql("ALTER TABLE agents ADD COLUMN extra text").await.expect("added");
                }
                shards[0].sql("UPDATE agents SET extra = 'kept'").await.expect("written");
            });
        }
    });
    let error = mover.run(&plan).await.expect_err("the tables have changed");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.message().contains("the columns of agents on shard_"), "{error}");
    assert!(error.message().contains("(extra)"), "{error}");
    db.mover().rollback().await.expect("rolled back");
    let kept = async || {
        let sql = "SELECT count(*) FROM agents WHERE extra = 'kept'";
        let rows = db.query_all(sql, params![]).await.expect("counted");
        rows.decode::<i64>().expect("one")[0]
    };
    let before = kept().await;
    assert!(before > 4, "{before}");
    let reports = db.mover().run(&plan).await.expect("moved");
    assert_eq!(reports[0].moved, plan.moves.len() - 1);
    assert_eq!(kept().await, before);
    assert_eq!(at_home(&db).await.iter().sum::<i64>(), 200);
    nothing_left(&db).await;
}

#[tokio::test]
async fn a_mover_that_was_let_in_late_leaves_an_unfinished_move_alone() {
    let held = three().await;
    let (db, other) = (process(&held, 2).await, process(&held, 2).await);
    fill(&db, 30, 3).await;
    let plan = few(&db, 30).await;
    let following = |event: &MoveEvent| *event == MoveEvent::Reached(MoveState::Following);
    run_until(db.mover(), &plan, following).await;
    // The other one looks before the first begins, and gets its locks after that has died.
    let rename = async |from: &str, to: &str| {
        for shard in [&held[0], &held[2]] {
            let sql = format!("ALTER SCHEMA {from} RENAME TO {to}");
            shard.sql(&sql).await.expect("renamed");
        }
    };
    rename("resonant_move", "hidden").await;
    let (rename, late, ends) = (&rename, other.mover(), other.mover());
    let (late, released, ()) = tokio::join!(late.run(&plan), ends.release(), async {
        let shard = db.shard("shard_0").expect("a shard");
        let kept_out = shard.transaction(async |tx| {
            tx.query("SELECT pg_advisory_xact_lock(5927193, 2)", params![]).await?;
            until("both wait", async || {
                let sql =
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND
                     pid <> pg_backend_pid() AND query LIKE '%pg_try_advisory_lock(5927193, 2)%'";
                held[0].value(sql).await.expect("counted") == "2"
            })
            .await;
            rename("hidden", "resonant_move").await;
            Ok(())
        });
        kept_out.await.expect("kept out");
    });
    let error = late.expect_err("a move is unfinished");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.message().contains("unfinished"), "{error}");
    let error = released.expect_err("its triggers are needed");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    let resumed = db.mover().resume().await.expect("resumed");
    assert_eq!(resumed[0].moved, plan.moves.len());
    nothing_left(&db).await;
    assert_eq!(at_home(&db).await.iter().sum::<i64>(), 120);
}

#[tokio::test]
async fn a_role_that_may_write_neither_passes_the_trigger_nor_abuses_it() {
    let held = three().await;
    for shard in &held {
        let name = shard.name();
        // What a mover commits is durable, whatever else is.
        let sql = format!(
            "ALTER DATABASE \"{name}\" SET synchronous_commit = off;
             CREATE TABLE heard (setting text);
             CREATE FUNCTION hear() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF current_setting('resonant.mover', true) = 'on' THEN
                     INSERT INTO public.heard VALUES (current_setting('synchronous_commit'));
                 END IF;
             END $$;
             CREATE EVENT TRIGGER hear ON ddl_command_end EXECUTE FUNCTION hear();"
        );
        shard.sql(&sql).await.expect("set");
    }
    let db = process(&held, 2).await;
    fill(&db, 40, 2).await;
    let plan = few(&db, 40).await;
    db.mover().run(&plan).await.expect("moved");
    for shard in [&held[0], &held[2]] {
        let sql = "SELECT string_agg(DISTINCT setting, ', ') FROM heard";
        assert_eq!(shard.value(sql).await.expect("heard"), "on");
    }
    let (gone, stays) = (orgs_of(&db, 40, "shard_2"), orgs_of(&db, 40, "shard_0"));
    let role = format!("app_{}", held[0].name());
    let sql = format!(
        "CREATE ROLE \"{role}\"; GRANT SELECT, INSERT, UPDATE, DELETE ON agents, tasks TO \"{role}\";
         CREATE SCHEMA own AUTHORIZATION \"{role}\";"
    );
    held[0].sql(&sql).await.expect("a role");
    let become_role = format!("SET SESSION AUTHORIZATION \"{role}\"");
    let insert = format!("INSERT INTO agents (org_id, id, score) VALUES ('{}', 70, 1)", gone[0]);
    let as_mover = format!("{become_role}; SET resonant.mover = 'on'; {insert}");
    let error = held[0].sql(&as_mover).await.expect_err("it is no mover");
    assert!(error.to_string().contains("has moved to shard_2"), "{error}");
    // What the names in the trigger mean is not for the caller to say.
    let sql = format!(
        "{become_role};
         CREATE TABLE own.taken (by text);
         CREATE FUNCTION own.take(text, text) RETURNS boolean LANGUAGE plpgsql AS
             'BEGIN INSERT INTO own.taken VALUES (current_user); RETURN pg_catalog.texteq($1, $2); END';
         CREATE OPERATOR own.= (LEFTARG = text, RIGHTARG = text, FUNCTION = own.take);
         SET search_path = own, pg_catalog, public;
         UPDATE public.agents SET score = 5 WHERE org_id OPERATOR(pg_catalog.=) '{}' AND id = 1;",
        stays[0]
    );
    held[0].sql(&sql).await.expect("written");
    assert_eq!(held[0].value("SELECT count(*) FROM own.taken").await.expect("counted"), "0");
    // And the trigger is for these tables alone.
    let sql = "SELECT max(proname) FROM pg_proc WHERE prosecdef AND proname LIKE 'guard_%'";
    let guard = held[0].value(sql).await.expect("a trigger");
    let sql = format!(
        "{become_role}; CREATE TABLE own.agents (org_id text, id bigint);
         CREATE TRIGGER own BEFORE INSERT ON own.agents FOR EACH ROW EXECUTE FUNCTION resonant.{guard}()"
    );
    let error = held[0].sql(&sql).await.expect_err("not its own");
    assert!(error.to_string().contains("permission denied"), "{error}");
    let sql = format!("DROP OWNED BY \"{role}\" CASCADE; DROP ROLE \"{role}\"");
    held[0].sql(&sql).await.expect("gone");
}
