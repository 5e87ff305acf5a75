//! Values go in and come out.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Place;
use super::kit::{ask, ask_one, good, kind, set_up, writer};
use crate::backend::ParamRows;
use crate::{ErrorKind, Param, params};

const TYPES: &str = "CREATE TABLE v (k BIGINT PRIMARY KEY, i BIGINT, f DOUBLE PRECISION, t TEXT, b BYTEA, y BOOLEAN)";
const INSERT: &str = "INSERT INTO v (k, i, f, t, b, y) VALUES ($1, $2, $3, $4, $5, $6)";

/// A row of table `v`, as [`INSERT`] takes it and a query answers it.
type Row = (i64, Option<i64>, Option<f64>, Option<String>, Option<Vec<u8>>, Option<bool>);

fn samples() -> Vec<Row> {
    let text = |text: &str| Some(text.to_owned());
    vec![
        (1, Some(i64::MAX), Some(f64::MAX), text("Ada"), Some(vec![0, 255, 10]), Some(true)),
        (2, Some(i64::MIN), Some(-0.1), text("'; DROP TABLE v; --"), Some(vec![]), Some(false)),
        (3, None, None, None, None, None),
        (4, Some(0), Some(f64::INFINITY), text("$1 ? :x"), Some(b"text".to_vec()), Some(true)),
    ]
}

fn param_row(row: &Row) -> [Param<'_>; 6] {
    let (key, int, float, text, bytes, boolean) = row;
    [
        Param::from(*key),
        (*int).into(),
        (*float).into(),
        text.as_ref().into(),
        bytes.as_ref().into(),
        (*boolean).into(),
    ]
}

/// Every kind of value, NULL among them, comes back as it went in.
pub async fn values_come_back_as_they_went(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, TYPES).await;
    for row in samples() {
        assert_eq!(good(INSERT, connection.execute(INSERT, &param_row(&row)).await), 1);
    }
    let rows: Vec<Row> = ask(&mut *connection, "SELECT * FROM v ORDER BY k", &[]).await;
    assert_eq!(rows, samples());
    // Also as a parameter that is compared.
    for row in samples().iter().filter(|row| row.3.is_some()) {
        let found: Vec<i64> = ask(
            &mut *connection,
            "SELECT k FROM v WHERE i = $1 AND t = $2 AND b = $3",
            &[row.1.into(), row.3.as_ref().into(), row.4.as_ref().into()],
        )
        .await;
        assert_eq!(found, [row.0]);
    }
}

/// A bulk insert stores the same values, in order.
pub async fn bulk_rows_keep_order_and_types(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, TYPES).await;
    let mut rows = ParamRows::new(6);
    let samples: Vec<Row> = (0..200_i64)
        .flat_map(|turn| {
            samples()
                .into_iter()
                .map(move |row| (turn * 10 + row.0, row.1, row.2, row.3, row.4, row.5))
        })
        .collect();
    for row in &samples {
        good("push", rows.push(&param_row(row)));
    }
    assert_eq!(good(INSERT, connection.execute_many(INSERT, rows).await), 800);
    let stored: Vec<Row> = ask(&mut *connection, "SELECT * FROM v ORDER BY k", &[]).await;
    assert!(stored == samples, "the stored rows differ");
    assert_eq!(good(INSERT, connection.execute_many(INSERT, ParamRows::new(6)).await), 0);
}

/// `$n` is the n-th parameter, wherever and however often it stands.
pub async fn placeholders_stand_for_their_number(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE p (a TEXT, b TEXT, c TEXT)").await;
    let insert = "INSERT INTO p (c, b, a) VALUES ($3, $2, $1)";
    good(insert, connection.execute(insert, params!["one", "two", "three"]).await);
    let mut rows = ParamRows::new(3);
    good("push", rows.push(params!["four", "five", "six"]));
    good(insert, connection.execute_many(insert, rows).await);
    let all: Vec<(String, String, String)> =
        ask(&mut *connection, "SELECT a, b, c FROM p ORDER BY a", &[]).await;
    let text = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(all, [text("four", "five", "six"), text("one", "two", "three")]);
    let reused = "SELECT a FROM p WHERE b = $2 AND (a = $1 OR a = $1) AND b <> $1";
    let found: Vec<String> = ask(&mut *connection, reused, params!["one", "two"]).await;
    assert_eq!(found, ["one"]);
}

/// Texts of any script, empty ones and NULL are kept apart.
pub async fn unicode_and_empty_texts_differ_from_null(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE u (k BIGINT PRIMARY KEY, t TEXT)").await;
    let texts =
        [Some("Zażółć gęślą jaźń"), Some("日本語 🦀 \u{10FFFF}"), Some("e\u{301}"), Some(""), None];
    for (key, text) in (0_i64..).zip(texts) {
        let sql = "INSERT INTO u (k, t) VALUES ($1, $2)";
        good(sql, connection.execute(sql, params![key, text]).await);
    }
    let stored: Vec<Option<String>> =
        ask(&mut *connection, "SELECT t FROM u ORDER BY k", &[]).await;
    assert_eq!(stored, texts.map(|text| text.map(str::to_owned)));
    let empty: i64 = ask_one(&mut *connection, "SELECT count(*) FROM u WHERE t = ''").await;
    assert_eq!(empty, 1);
}

/// Rows of megabytes and answers of a hundred columns come whole.
pub async fn big_rows_and_many_columns_come_whole(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE g (t TEXT, b BYTEA)").await;
    let (text, bytes) = ("x".repeat(3 << 20), vec![7_u8; 5 << 20]);
    let sql = "INSERT INTO g (t, b) VALUES ($1, $2)";
    good(sql, connection.execute(sql, params![text, bytes]).await);
    let rows = good("select", connection.query("SELECT t, b FROM g", &[]).await);
    let Some(row) = rows.first() else { panic!("the row is gone") };
    assert!(good("t", row.get::<&str>("t")) == text && good("b", row.get::<&[u8]>(1)) == bytes);

    let names: Vec<String> = (0..100).map(|n| format!("{n} AS c{n}")).collect();
    let wide = format!("SELECT {}", names.join(", "));
    let rows = good("wide", connection.query(&wide, &[]).await);
    assert_eq!(rows.columns().len(), 100);
    assert_eq!(rows.columns()[42].name(), "c42");
    let map: Vec<BTreeMap<String, i64>> = good("wide", rows.decode());
    assert_eq!(map[0].values().sum::<i64>(), 4950);
}

/// An answer without rows still has its columns; a statement that answers nothing has neither.
pub async fn empty_answers_have_columns(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(&mut *connection, "CREATE TABLE e (a BIGINT, b TEXT)").await;
    let rows = good("select", connection.query("SELECT b, a AS other FROM e", &[]).await);
    assert!(rows.is_empty());
    let names: Vec<_> = rows.columns().iter().map(|column| column.name()).collect();
    assert_eq!(names, ["b", "other"]);
    let rows = good("insert", connection.query("INSERT INTO e (a) VALUES (1)", &[]).await);
    assert!(rows.is_empty() && rows.columns().is_empty());
    let returned: Vec<i64> =
        ask(&mut *connection, "INSERT INTO e (a) VALUES (2) RETURNING a", &[]).await;
    assert_eq!(returned, [2]);
}

#[derive(Debug, PartialEq, Deserialize)]
struct Account {
    id: u32,
    owner: Option<String>,
    balance: f64,
    open: bool,
    state: State,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Active,
}

/// Rows decode into structs by column name and into tuples by position; what does not fit is an error that names the
/// column and not the value.
pub async fn rows_decode_into_types(place: &dyn Place) {
    let mut connection = writer(place).await;
    set_up(
        &mut *connection,
        "CREATE TABLE a (open BOOLEAN, id BIGINT, balance DOUBLE PRECISION, owner TEXT, state TEXT)",
    )
    .await;
    let sql = "INSERT INTO a (open, id, balance, owner, state) VALUES ($1, $2, $3, $4, $5)";
    good(sql, connection.execute(sql, params![true, 7, 2.5, None::<&str>, "active"]).await);
    let rows = good("select", connection.query("SELECT * FROM a", &[]).await);
    let account = Account { id: 7, owner: None, balance: 2.5, open: true, state: State::Active };
    assert_eq!(good("decode", rows.decode::<Account>()), [account]);
    let tuple: Vec<(bool, u8, f64)> =
        ask(&mut *connection, "SELECT open, id, balance FROM a", &[]).await;
    assert_eq!(tuple, [(true, 7, 2.5)]);

    let sql = "UPDATE a SET id = $1";
    good(sql, connection.execute(sql, params![-987_654]).await);
    let rows = good("select", connection.query("SELECT * FROM a", &[]).await);
    let error = kind("decode", rows.decode::<Account>(), ErrorKind::Decode).to_string();
    assert!(error.contains("\"id\"") && error.contains("Account"), "{error}");
    assert!(!error.contains("987654"), "{error}");
}
