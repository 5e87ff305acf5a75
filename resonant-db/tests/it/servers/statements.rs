//! Prepared statements: bounded, and they survive a change of the schema.

use resonant_db::backend::postgres::Postgres;
use resonant_db::backend::{Access, Backend, BeginOptions, Isolation, ParamRows, Target};
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
    assert_eq!(trips(1).await, 2, "never seen: the types are asked for first");
    assert_eq!(trips(20).await, 20);
    let before = proxy.stats().round_trips;
    let rows = (0..200).map(|n| [resonant_db::Param::Int(n)]);
    db.write().execute_many("SELECT $1::bigint", rows).await.expect("many");
    let bulk = proxy.stats().round_trips - before;
    assert!(bulk < 50, "two hundred rows took {bulk} round trips");
}

#[tokio::test]
async fn types_are_learned_once_for_all_connections() {
    let cluster = PostgresCluster::builder().start().await.expect("a server");
    let proxy = FaultProxy::start(cluster.primary().address()).await.expect("a proxy");
    let url = cluster.primary().url_through(&proxy);
    let backend = Postgres::from_url(&url).expect("a good URL");
    let target = Target::new(&url, Access::ReadWrite, None);
    let setup =
        "CREATE TYPE mood AS ENUM ('fine'); CREATE TABLE t (id int PRIMARY KEY, a uuid, m mood)";
    cluster.primary().sql(setup).await.expect("create");
    let insert = "INSERT INTO t (id, a) VALUES ($1, $2)";
    let uuid = "00000000-0000-0000-0000-000000000001";
    let mut trips = Vec::new();
    for turn in 0..3_i64 {
        let mut connection = backend.connect(&target).await.expect("connect");
        for n in 0..2 {
            let before = proxy.stats().round_trips;
            connection.execute(insert, params![turn * 10 + n, uuid]).await.expect("insert");
            trips.push(proxy.stats().round_trips - before);
        }
    }
    assert_eq!(trips, [2, 1, 1, 1, 1, 1], "only the very first one asks for the types");

    // Types of the user's own are looked up by each connection, also where many rows follow.
    let select = "SELECT 'fine'::mood AS m, n FROM generate_series(1, $1::int) AS n";
    for _ in 0..3 {
        let mut connection = backend.connect(&target).await.expect("connect");
        for _ in 0..2 {
            let rows = connection.query(select, params![20_000]).await.expect("select");
            assert_eq!(rows.len(), 20_000);
            assert_eq!(rows.first().expect("a row").get::<String>("m").expect("text"), "fine");
        }
        let none = connection.query(select, params![0]).await.expect("select");
        assert_eq!(none.columns().len(), 2);
    }
}

#[tokio::test]
async fn what_was_learned_elsewhere_and_is_no_longer_true_heals_itself() {
    let database = database().await;
    let backend = Postgres::from_url(&database.url()).expect("a good URL");
    let target = Target::new(&database.url(), Access::ReadWrite, None);
    let connect = async || backend.connect(&target).await.expect("connect");
    database.sql("CREATE TABLE t (a text)").await.expect("create");
    let insert = "INSERT INTO t (a) VALUES ($1)";
    connect().await.execute(insert, params!["one"]).await.expect("insert");
    let plain = BeginOptions::new(Isolation::Engine, Access::ReadWrite);
    for (change, value) in [
        ("DROP TABLE t; CREATE TABLE t (a int)", resonant_db::Param::Int(7)),
        ("DROP TABLE t; CREATE TABLE t (a jsonb)", resonant_db::Param::Text("{}")),
        (
            "DROP TABLE t; CREATE TABLE t (a uuid)",
            resonant_db::Param::Text("00000000-0000-0000-0000-000000000001"),
        ),
        ("DROP TABLE t; CREATE TABLE t (a bytea)", resonant_db::Param::Bytes(b"x")),
    ] {
        database.sql(change).await.expect("change");
        connect().await.execute(insert, &[value]).await.expect(change);
        assert_eq!(database.value("SELECT count(*) FROM t").await.expect("count"), "1", "{change}");
    }
    // In a transaction it is lost, and run again.
    database.sql("DROP TABLE t; CREATE TABLE t (a text)").await.expect("change");
    connect().await.execute(insert, params!["one"]).await.expect("insert");
    database.sql("DROP TABLE t; CREATE TABLE t (a jsonb)").await.expect("change");
    let mut connection = connect().await;
    connection.begin(plain).await.expect("begin");
    let error = connection.execute(insert, params!["{}"]).await.expect_err("text for jsonb");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    connection.rollback().await.expect("rollback");
    connection.begin(plain).await.expect("begin");
    connection.execute(insert, params!["{}"]).await.expect("the second time");
    connection.commit().await.expect("commit");
    // An error of the caller's stays what it is, and the transaction goes on as one that failed.
    let error = connect().await.execute(insert, params!["{"]).await.expect_err("no JSON");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert_eq!(connection.verdict(), Verdict::Reuse);
}

#[tokio::test]
async fn a_call_that_is_dropped_while_it_prepares_leaves_no_statement_behind() {
    let database = database().await;
    database.sql("CREATE TYPE mood AS ENUM ('fine', 'bad')").await.expect("a type");
    let mut connection = connect(&format!("{}?statements=4", database.url())).await;
    for n in 0..60_u64 {
        // The second kind has a type that is looked up behind it.
        let sql = match n % 2 {
            0 => format!("SELECT {n}"),
            _ => format!("SELECT 'fine'::mood AS m{n}"),
        };
        if n < 20 {
            let _ = futures::poll!(Box::pin(connection.query(&sql, &[])));
        } else {
            let moment = std::time::Duration::from_micros(n % 10 * 100);
            let _ = tokio::time::timeout(moment, connection.query(&sql, &[])).await;
        }
        if connection.verdict() == Verdict::Clean {
            connection.clean().await.expect("clean");
        }
    }
    let rows =
        connection.query("SELECT count(*) FROM pg_prepared_statements", &[]).await.expect("count");
    let kept: i64 = rows.first().expect("a row").get(0).expect("a count");
    // Those it keeps, this one, and the driver's own for the types.
    assert!(kept <= 8, "{kept} statements are left");
}
