//! Prepared statements: bounded, and they survive a change of the schema.

use resonant_db::backend::{Access, BeginOptions, Isolation, ParamRows};
use resonant_db::pool::Verdict;
use resonant_db::{Database, ErrorKind, PoolConfig, params};
use resonant_testkit::{FaultProxy, PostgresCluster};

use super::{connect, database};

#[tokio::test]
async fn a_schema_change_heals_itself() {
    let database = database().await;
    let mut connection = connect(&database.url()).await;
    connection.batch("CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await.expect("create");
    let (select, insert) =
        ("SELECT * FROM t ORDER BY a", "INSERT INTO t (a) VALUES ($1) RETURNING *");
    assert_eq!(connection.query(select, &[]).await.expect("select").columns().len(), 1);
    connection.query(insert, params![2]).await.expect("insert");
    database.sql("ALTER TABLE t ADD COLUMN b text DEFAULT 'new'").await.expect("alter");
    let rows = connection.query(select, &[]).await.expect("healed");
    assert_eq!(
        rows.decode::<(i64, String)>().expect("decode"),
        [(1, "new".into()), (2, "new".into())]
    );
    assert_eq!(connection.query(insert, params![3]).await.expect("healed").columns().len(), 2);

    // A column that takes another type; the old plan would have sent four bytes.
    let many = "INSERT INTO t (a) VALUES ($1)";
    connection.execute(many, params![4]).await.expect("insert");
    database.sql("ALTER TABLE t ALTER COLUMN a TYPE bigint").await.expect("alter");
    connection.execute(many, params![5]).await.expect("healed");
    let mut rows = ParamRows::new(1);
    rows.push(params![6]).expect("a row");
    connection.execute_many(many, rows).await.expect("healed");
    assert_eq!(database.value("SELECT count(*) FROM t").await.expect("count"), "6");
    assert_eq!(connection.verdict(), Verdict::Reuse);

    // Dropped and made anew.
    database.sql("DROP TABLE t; CREATE TABLE t (a text)").await.expect("anew");
    connection.query("SELECT * FROM t", &[]).await.expect("select");
    connection.execute(many, params!["seven"]).await.expect("a text now");
}

#[tokio::test]
async fn in_a_transaction_a_schema_change_is_a_conflict_so_that_it_runs_again() {
    let database = database().await;
    database.sql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await.expect("create");
    let mut connection = connect(&database.url()).await;
    let select = "SELECT * FROM t";
    connection.query(select, &[]).await.expect("prepared");
    database.sql("ALTER TABLE t ADD COLUMN b int").await.expect("alter");
    connection.begin(BeginOptions::new(Isolation::Engine, Access::ReadWrite)).await.expect("begin");
    let error = connection.query(select, &[]).await.expect_err("the plan is outdated");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    connection.rollback().await.expect("rollback");

    let db = Database::connect(database.url()).await.expect("connect");
    db.write().query(select, params![]).await.expect("prepared");
    database.sql("ALTER TABLE t ADD COLUMN c int").await.expect("alter");
    for _ in 0..20 {
        let columns = db
            .transaction(async |tx| Ok(tx.query(select, params![]).await?.columns().len()))
            .await
            .expect("run again");
        assert_eq!(columns, 3);
    }
}

#[tokio::test]
async fn the_statements_a_connection_keeps_are_bounded() {
    let database = database().await;
    let mut connection = connect(&format!("{}?statements=4", database.url())).await;
    for n in 0..30 {
        connection.query(&format!("SELECT {n}"), &[]).await.expect("select");
    }
    let rows =
        connection.query("SELECT count(*) FROM pg_prepared_statements", &[]).await.expect("count");
    let kept: i64 = rows.first().expect("a row").get(0).expect("a count");
    assert!(kept <= 5, "{kept} statements are kept");
}

#[tokio::test]
async fn a_hot_statement_costs_one_round_trip_and_its_checkout_none() {
    let cluster = PostgresCluster::builder().start().await.expect("a server");
    let proxy = FaultProxy::start(cluster.primary().address()).await.expect("a proxy");
    let pool = PoolConfig::default().min_size(1).max_size(1);
    let url = cluster.primary().url_through(&proxy);
    let db = Database::builder().primary(url).pool(pool).connect().await.expect("connect");
    let trips = async |calls: u32| {
        let before = proxy.stats().round_trips;
        for n in 0..calls {
            let found: i64 =
                db.write().query_one_as("SELECT $1::bigint", params![n]).await.expect("select");
            assert_eq!(found, i64::from(n));
        }
        proxy.stats().round_trips - before
    };
    assert_eq!(trips(1).await, 2, "cold: the types are asked for first");
    assert_eq!(trips(20).await, 20);
    let before = proxy.stats().round_trips;
    let rows = (0..200).map(|n| [resonant_db::Param::Int(n)]);
    db.write().execute_many("SELECT $1::bigint", rows).await.expect("many");
    let bulk = proxy.stats().round_trips - before;
    assert!(bulk < 50, "two hundred rows took {bulk} round trips");
}
