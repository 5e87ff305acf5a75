//! What goes in and comes out, type by type.

use resonant_db::{ErrorKind, Param, params};
use serde::Deserialize;

use super::{connect, database};

#[tokio::test]
async fn every_type_comes_back_as_the_server_would_read_it() {
    let database = database().await;
    let mut connection = connect(&database.url()).await;
    connection
        .batch("CREATE TYPE mood AS ENUM ('sad', 'fine'); CREATE DOMAIN cents AS bigint")
        .await
        .expect("types");
    let cases = [
        ("numeric(20,4)", "-12345.6700", "-12345.6700"),
        ("numeric", "0.000000000000000000001", "0.000000000000000000001"),
        ("numeric", "123456789012345678901234567890", "123456789012345678901234567890"),
        ("numeric", "NaN", "NaN"),
        ("numeric", "10000", "10000"),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("json", "{\"a\": 1}", "{\"a\": 1}"),
        ("jsonb", "{\"a\":1}", "{\"a\": 1}"),
        ("timestamptz", "2024-02-29 12:34:56.789+02", "2024-02-29T10:34:56.789Z"),
        ("timestamp", "1999-12-31 23:59:59", "1999-12-31T23:59:59"),
        ("timestamptz", "infinity", "infinity"),
        ("date", "0044-03-15 BC", "0044-03-15 BC"),
        ("time", "23:59:59.000001", "23:59:59.000001"),
        ("timetz", "01:02:03+05:30", "01:02:03+05:30"),
        ("interval", "1 year 2 mons 3 days 04:05:06.7", "P1Y2M3DT4H5M6.7S"),
        ("inet", "10.1.2.3/8", "10.1.2.3/8"),
        ("inet", "::1", "::1"),
        ("cidr", "10.0.0.0/8", "10.0.0.0/8"),
        ("macaddr", "08:00:2b:01:02:03", "08:00:2b:01:02:03"),
        ("varbit", "10110", "10110"),
        ("pg_lsn", "16/B374D848", "16/B374D848"),
        ("mood", "fine", "fine"),
        ("int4[]", "{1,NULL,3}", "{1,NULL,3}"),
        (
            "text[]",
            "{a,\"b c\",\"\",\"nu\\\"ll\",\"NULL\"}",
            "{a,\"b c\",\"\",\"nu\\\"ll\",\"NULL\"}",
        ),
        ("int4[][]", "{{1,2},{3,4}}", "{{1,2},{3,4}}"),
        ("mood[]", "{sad,fine}", "{sad,fine}"),
        ("int4range", "[1,5)", "[1,5)"),
        ("int4range", "empty", "empty"),
        ("tstzrange", "[2024-01-01 00:00:00+00,)", "[2024-01-01T00:00:00Z,)"),
        ("xml", "<a/>", "<a/>"),
        ("bpchar(3)", "a", "a  "),
    ];
    for (declared, given, expected) in cases {
        let sql = format!("SELECT $1::{declared} AS v");
        let rows = connection.query(&sql, params![given]).await.expect(declared);
        let row = rows.first().expect("a row");
        assert_eq!(row.get::<String>("v").expect(declared), expected, "{declared}");
        // The server reads what we show as the same value.
        if !["json", "xml"].contains(&declared) {
            let same = format!("SELECT $1::{declared} IS NOT DISTINCT FROM $2::text::{declared}");
            let rows = connection.query(&same, params![given, expected]).await.expect(declared);
            assert!(
                rows.first().expect("a row").get::<bool>(0).expect("bool"),
                "{declared} {expected}"
            );
        }
    }
    let rows = connection.query("SELECT 7::cents, ROW(1, 'a,b', NULL)", &[]).await.expect("select");
    let row = rows.first().expect("a row");
    assert_eq!(row.get::<i64>(0).expect("a domain"), 7);
    assert_eq!(row.get::<String>(1).expect("a row"), "(1,\"a,b\",)");
}

#[tokio::test]
async fn sums_and_averages_are_numbers() {
    let database = database().await;
    let mut connection = connect(&database.url()).await;
    let sql =
        "SELECT sum(n) AS sum, avg(n) AS avg, count(*) AS count FROM generate_series(1, 4) AS n(n)";
    #[derive(Debug, PartialEq, Deserialize)]
    struct Sums {
        sum: i64,
        avg: f64,
        count: u8,
    }
    let rows = connection.query(sql, &[]).await.expect("select");
    assert_eq!(rows.decode::<Sums>().expect("decode"), [Sums { sum: 10, avg: 2.5, count: 4 }]);
    let rows = connection
        .query("SELECT sum(n::bigint), 2.50 FROM generate_series(1, 4) n", &[])
        .await
        .expect("select");
    assert_eq!(rows.decode::<(i64, String)>().expect("decode"), [(10, "2.50".into())]);
    let error = rows.decode::<(i64, i64)>().expect_err("a fraction").to_string();
    assert!(!error.contains("2.5"), "{error}");
}

#[tokio::test]
async fn parameters_fit_whatever_the_server_declared() {
    let database = database().await;
    let mut connection = connect(&database.url()).await;
    connection
        .batch("CREATE TABLE t (a smallint, b int, c bigint, d real, e double precision, f numeric, g uuid, h jsonb, i timestamptz, j bool, k oid)")
        .await
        .expect("create");
    let sql = "INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    let id = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    let row = params![1, 2, 3, 1.5, 2, 0.1, id, "[]", "2024-01-01T00:00:00Z", true, 5];
    assert_eq!(connection.execute(sql, row).await.expect("insert"), 1);
    let nothing = [Param::Null; 11];
    assert_eq!(connection.execute(sql, &nothing).await.expect("nulls"), 1);
    let rows = connection
        .query("SELECT a, d, e, f, i FROM t WHERE c = $1", params![3])
        .await
        .expect("select");
    let decoded: Vec<(i32, f64, f64, f64, String)> = rows.decode().expect("decode");
    assert_eq!(decoded, [(1, 1.5, 2.0, 0.1, "2024-01-01T00:00:00Z".into())]);

    for (sql, params) in [
        ("SELECT $1::smallint", params![70_000]),
        ("SELECT $1::text", params![7]),
        ("SELECT $1::bytea", params!["text"]),
        ("SELECT $1::int", params![1.5]),
    ] {
        let error = connection.query(sql, params).await.expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        assert!(error.to_string().contains("parameter $1"), "{error}");
    }
    // A mistake of that kind costs nothing: nothing was sent.
    connection.query("SELECT 1", &[]).await.expect("goes on");
}

#[tokio::test]
async fn a_type_without_a_text_form_hurts_only_who_asks_for_it() {
    let database = database().await;
    let mut connection = connect(&database.url()).await;
    let rows =
        connection.query("SELECT 1 AS a, to_tsvector('a b') AS b", &[]).await.expect("select");
    let row = rows.first().expect("a row");
    assert_eq!(row.get::<i64>("a").expect("an int"), 1);
    let error = row.get::<String>("b").expect_err("a tsvector").to_string();
    assert!(error.contains("cast it to text"), "{error}");
}

#[tokio::test]
async fn arrays_are_sequences() {
    let database = database().await;
    let mut connection = connect(&database.url()).await;
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Mood {
        Sad,
        Fine,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct All {
        numbers: Vec<i64>,
        some: Vec<Option<String>>,
        flags: Vec<bool>,
        moods: Vec<Mood>,
        sums: Vec<f64>,
        grid: Vec<Vec<u8>>,
        none: Option<Vec<i64>>,
    }
    let sql = "SELECT ARRAY[1, 2]::int4[] AS numbers, ARRAY['a b', NULL, '{\"}', ''] AS some, ARRAY[true, false] AS flags, \
               ARRAY['sad', 'fine'] AS moods, ARRAY[0.5, 2]::numeric[] AS sums, ARRAY[[1, 2], [3, 4]]::int8[] AS grid, \
               NULL::int4[] AS none";
    let rows = connection.query(sql, &[]).await.expect("select");
    let text = |text: &str| Some(text.to_owned());
    let expected = All {
        numbers: vec![1, 2],
        some: vec![text("a b"), None, text("{\"}"), text("")],
        flags: vec![true, false],
        moods: vec![Mood::Sad, Mood::Fine],
        sums: vec![0.5, 2.0],
        grid: vec![vec![1, 2], vec![3, 4]],
        none: None,
    };
    assert_eq!(rows.decode::<All>().expect("decode"), [expected]);
    let found = connection
        .query("SELECT n FROM generate_series(1, 5) n WHERE n = ANY($1)", params!["{2,4}"])
        .await;
    assert_eq!(found.expect("select").decode::<i64>().expect("decode"), [2, 4]);
}
