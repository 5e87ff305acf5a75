//! The types of other crates, in both directions.

use std::fmt::Debug;

use resonant_db::backend::Connection;
use resonant_db::{ErrorKind, FromValue, Param, ToParam, params};
use serde::Deserialize;

use super::{connect, database};

/// Gives a value to the server as a parameter of `declared`, alone, as nothing and in an array, and takes it back.
async fn there_and_back<T>(connection: &mut dyn Connection, declared: &str, value: T)
where
    T: ToParam + for<'a> FromValue<'a> + Clone + PartialEq + Debug + Send + Sync,
    Vec<T>: ToParam + for<'a> FromValue<'a>,
    Vec<Option<T>>: ToParam + for<'a> FromValue<'a>,
{
    let sql = format!(
        "SELECT $1::{declared} AS one, $2::{declared} AS nothing, $3::{declared}[] AS list, $4::{declared}[] AS gaps"
    );
    let list = vec![value.clone(), value.clone()];
    let gaps = vec![Some(value.clone()), None];
    let rows = connection
        .query(&sql, params![value, None::<T>, list, gaps])
        .await
        .unwrap_or_else(|error| panic!("{declared} {value:?}: {error}"));
    let row = rows.first().expect("a row");
    assert_eq!(row.get::<T>("one").expect(declared), value, "{declared}");
    assert_eq!(row.get::<Option<T>>("nothing").expect(declared), None);
    assert_eq!(row.get::<Vec<T>>("list").expect(declared), list);
    assert_eq!(row.get::<Vec<Option<T>>>("gaps").expect(declared), gaps);
    // What is asked for is never another value in disguise.
    let error = row.get::<T>("nothing").expect_err("null");
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(error.to_string().contains(std::any::type_name::<T>()), "{error}");
    let error = row.get::<Vec<T>>("gaps").expect_err("a null in it").to_string();
    assert!(error.contains("\"gaps\" of type _"), "{error}");
}

/// What a type cannot hold is an error that names the column, its type and the Rust type, and not the value.
async fn refused<T: for<'a> FromValue<'a> + Debug>(
    connection: &mut dyn Connection,
    declared: &str,
    value: &str,
) {
    let rows = connection.query(&format!("SELECT '{value}'::{declared} AS v"), &[]).await;
    let rows = rows.expect(declared);
    let error = rows.first().expect("a row").get::<T>("v").expect_err(value);
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Decode);
    let named = text.contains("\"v\" of type ") && text.contains(std::any::type_name::<T>());
    assert!(named && !text.contains(value), "{text}");
}

#[tokio::test]
async fn uuids() {
    let database = database().await;
    let mut connection = connect(&database.url()).await;
    let id = uuid::Uuid::from_u128(0xa0ee_bc99_9c0b_4ef8_bb6d_6bb9_bd38_0a11);
    there_and_back(&mut *connection, "uuid", id).await;
    refused::<uuid::Uuid>(&mut *connection, "text", "no uuid").await;
    let error = connection.query("SELECT $1::text", params![id]).await.expect_err("no text");
    assert!(error.to_string().contains("$1::uuid"), "{error}");
}

#[tokio::test]
async fn dates_and_moments_of_chrono() {
    use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
    let database = database().await;
    let mut connection = connect(&database.url()).await;
    let day =
        |year, month, of_month| NaiveDate::from_ymd_opt(year, month, of_month).expect("a day");
    let time = NaiveTime::from_hms_micro_opt(23, 59, 59, 999_999).expect("a time");
    for date in
        [day(2024, 2, 29), day(1970, 1, 1), day(1, 1, 1), day(-43, 3, 15), day(12_345, 6, 7)]
    {
        there_and_back(&mut *connection, "date", date).await;
        there_and_back(&mut *connection, "timestamp", date.and_time(time)).await;
        there_and_back(&mut *connection, "timestamptz", date.and_time(time).and_utc()).await;
    }
    there_and_back(&mut *connection, "time", time).await;
    // In another zone it is the same moment; what is finer than a microsecond is cut off.
    let east = FixedOffset::east_opt(5400).expect("a zone");
    let moment = day(1969, 12, 31).and_time(time).and_utc() + TimeDelta::nanoseconds(999);
    let rows = connection
        .query("SELECT $1::timestamptz AS at", params![moment.with_timezone(&east)])
        .await
        .expect("select");
    let back = rows.first().expect("a row").get::<DateTime<Utc>>("at").expect("a moment");
    assert_eq!(back, moment - TimeDelta::nanoseconds(999));

    #[derive(Debug, PartialEq, Deserialize)]
    struct Row {
        day: NaiveDate,
        time: NaiveTime,
        local: NaiveDateTime,
        at: DateTime<Utc>,
        never: Option<DateTime<Utc>>,
        several: Vec<NaiveDate>,
    }
    let at = day(2024, 2, 29).and_time(time);
    let sql = "SELECT $1::date AS day, $2::time AS time, $3::timestamp AS local, $4::timestamptz AS at, \
               NULL::timestamptz AS never, ARRAY[$1::date] AS several";
    let (date, moment) = (at.date(), at.and_utc());
    let rows = connection.query(sql, params![date, time, at, moment]).await.expect("select");
    let expected = Row {
        day: at.date(),
        time,
        local: at,
        at: at.and_utc(),
        never: None,
        several: vec![at.date()],
    };
    assert_eq!(rows.decode::<Row>().expect("decode"), [expected]);

    for value in ["infinity", "-infinity"] {
        refused::<NaiveDate>(&mut *connection, "date", value).await;
        refused::<NaiveDateTime>(&mut *connection, "timestamp", value).await;
        refused::<DateTime<Utc>>(&mut *connection, "timestamptz", value).await;
    }
    refused::<NaiveTime>(&mut *connection, "time", "24:00:00").await;
    // A zone is neither made up nor left out, in neither direction.
    refused::<DateTime<Utc>>(&mut *connection, "timestamp", "2024-01-01 00:00:00").await;
    refused::<NaiveDateTime>(&mut *connection, "timestamptz", "2024-01-01 00:00:00+00").await;
    for (sql, params) in [
        ("SELECT $1::timestamptz", params![at]),
        ("SELECT $1::timestamp", params![moment]),
        ("SELECT $1::text", params![date]),
    ] {
        let error = connection.query(sql, params).await.expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    }
    // The value that serde meets is not shown either.
    let rows = connection.query("SELECT 'infinity'::timestamptz AS at", &[]).await.expect("select");
    let error = rows.decode::<(DateTime<Utc>,)>().expect_err("infinite").to_string();
    assert!(error.contains("\"at\" of type timestamptz") && error.contains("chrono"), "{error}");
    assert!(!error.contains("infinity"), "{error}");
}

#[tokio::test]
async fn dates_and_moments_of_time() {
    use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};
    let database = database().await;
    let mut connection = connect(&database.url()).await;
    let clock = Time::from_hms_micro(23, 59, 59, 999_999).expect("a time");
    for (year, month, day) in
        [(2024, Month::February, 29), (1970, Month::January, 1), (-43, Month::March, 15)]
    {
        let date = Date::from_calendar_date(year, month, day).expect("a day");
        let at = PrimitiveDateTime::new(date, clock);
        there_and_back(&mut *connection, "date", date).await;
        there_and_back(&mut *connection, "timestamp", at).await;
        there_and_back(&mut *connection, "timestamptz", at.assume_utc()).await;
        let west = at.assume_utc().to_offset(UtcOffset::from_hms(-3, 0, 0).expect("a zone"));
        let rows =
            connection.query("SELECT $1::timestamptz AS at", params![west]).await.expect("select");
        assert_eq!(rows.first().expect("a row").get::<OffsetDateTime>("at").expect("it"), west);
    }
    there_and_back(&mut *connection, "time", clock).await;
    refused::<Date>(&mut *connection, "date", "infinity").await;
    refused::<Date>(&mut *connection, "date", "12345-01-01").await;
    refused::<OffsetDateTime>(&mut *connection, "timestamptz", "-infinity").await;
    refused::<OffsetDateTime>(&mut *connection, "timestamp", "2024-01-01 00:00:00").await;
    refused::<PrimitiveDateTime>(&mut *connection, "timestamp", "infinity").await;
    refused::<Time>(&mut *connection, "time", "24:00:00").await;
}

#[tokio::test]
async fn dates_and_moments_of_jiff() {
    use jiff::civil::{Date, DateTime, Time, date, time};
    use jiff::tz::{TimeZone, offset};
    use jiff::{Timestamp, ToSpan};
    let database = database().await;
    let mut connection = connect(&database.url()).await;
    let clock = time(23, 59, 59, 999_999_000);
    for day in [date(2024, 2, 29), date(1970, 1, 1), date(1969, 12, 31), date(-43, 3, 15)] {
        let at = day.to_datetime(clock);
        let moment = at.to_zoned(TimeZone::UTC).expect("a moment").timestamp();
        there_and_back(&mut *connection, "date", day).await;
        there_and_back(&mut *connection, "timestamp", at).await;
        there_and_back(&mut *connection, "timestamptz", moment).await;
        let zoned = moment.to_zoned(offset(-3).to_time_zone());
        let finer = zoned.checked_add(999.nanoseconds()).expect("a moment");
        let rows =
            connection.query("SELECT $1::timestamptz AS at", params![finer]).await.expect("select");
        assert_eq!(rows.first().expect("a row").get::<Timestamp>("at").expect("it"), moment);
    }
    there_and_back(&mut *connection, "time", clock).await;
    let sql = "SELECT $1::date, $2::time, $3::timestamptz";
    let moment = Timestamp::from_second(1_700_000_000).expect("a moment");
    let rows =
        connection.query(sql, params![date(2024, 2, 29), clock, moment]).await.expect("select");
    let decoded = rows.decode::<(Date, Time, Timestamp)>().expect("by serde");
    assert_eq!(decoded, [(date(2024, 2, 29), clock, moment)]);
    refused::<Date>(&mut *connection, "date", "infinity").await;
    refused::<Timestamp>(&mut *connection, "timestamptz", "infinity").await;
    refused::<Timestamp>(&mut *connection, "timestamp", "2024-01-01 00:00:00").await;
    refused::<DateTime>(&mut *connection, "timestamptz", "2024-01-01 00:00:00+00").await;
    refused::<Time>(&mut *connection, "time", "24:00:00").await;
}

#[tokio::test]
async fn decimals() {
    use rust_decimal::Decimal;
    let database = database().await;
    let mut connection = connect(&database.url()).await;
    for text in
        ["12.50", "-0.005", "0", "79228162514264337593543950335", "0.0000000000000000000000000001"]
    {
        let value = Decimal::from_str_exact(text).expect("a decimal");
        there_and_back(&mut *connection, "numeric", value).await;
    }
    let sql = "SELECT sum(n::bigint) AS sum, avg(n) AS avg FROM generate_series(1, 4) AS n(n)";
    let rows = connection.query(sql, &[]).await.expect("select");
    let row = rows.first().expect("a row");
    assert_eq!(row.get::<Decimal>("sum").expect("sum"), Decimal::from(10));
    assert_eq!(row.get::<Decimal>("avg").expect("avg"), Decimal::new(25, 1));
    let decoded = rows.decode::<(Decimal, Decimal)>().expect("by serde");
    assert_eq!(decoded, [(Decimal::from(10), Decimal::new(25, 1))]);
    // Zeros at the end fit, other digits do not.
    let rows = connection.query("SELECT 0.5::numeric(40, 35) AS n", &[]).await.expect("select");
    assert_eq!(rows.first().expect("a row").get::<Decimal>("n").expect("half"), Decimal::new(5, 1));
    refused::<Decimal>(&mut *connection, "numeric", "NaN").await;
    refused::<Decimal>(&mut *connection, "numeric", "Infinity").await;
    refused::<Decimal>(&mut *connection, "numeric", "79228162514264337593543950336").await;
    refused::<Decimal>(&mut *connection, "numeric", "0.00000000000000000000000000001").await;
    refused::<Decimal>(&mut *connection, "text", "12.5").await;
    let error =
        connection.query("SELECT $1::float8", params![Decimal::ONE]).await.expect_err("a float");
    assert!(error.to_string().contains("$1::numeric"), "{error}");
}

#[tokio::test]
async fn arrays_go_in_as_vectors_also_in_bulk() {
    let database = database().await;
    let db = resonant_db::Database::connect(database.url()).await.expect("connect");
    db.write()
        .batch("CREATE TABLE t (id int PRIMARY KEY, tags text[], sizes int[], at timestamptz[])")
        .await
        .expect("create");
    let tags = vec!["a", "b \"c\"\\", "NULL", "{,}", ""];
    let sizes = vec![Some(1), None, Some(-3)];
    let moment = Param::TimestampTz(1_700_000_000_123_456);
    let insert = "INSERT INTO t VALUES ($1, $2, $3, $4)";
    let nothing = Vec::<i64>::new();
    db.write().execute(insert, params![1, tags, sizes, None::<i64>]).await.expect("insert");
    let rows = [2, 3].map(|id| [Param::Int(id), tags.to_param(), sizes.to_param(), Param::Null]);
    db.write().execute_many(insert, rows).await.expect("bulk");
    let read = "SELECT tags, sizes FROM t WHERE id = ANY($1) ORDER BY id";
    let rows = db.write().query(read, params![vec![1, 2, 3]]).await.expect("select");
    assert_eq!(rows.len(), 3);
    for row in &rows {
        assert_eq!(row.get::<Vec<String>>("tags").expect("tags"), tags);
        assert_eq!(row.get::<Vec<Option<i32>>>("sizes").expect("sizes"), sizes);
    }
    assert!(db.write().query(read, params![nothing]).await.expect("select").is_empty());
    assert_eq!(
        db.write()
            .query_one_as::<String>("SELECT $1::timestamptz::text", params![moment])
            .await
            .expect("a moment")
            .len(),
        "2023-11-14 22:13:20.123456+00".len()
    );
    let error = db.write().query("SELECT $1::int[]", params![vec!["a"]]).await.map(|_| ()).err();
    // Text is the server's to read, also in an array.
    assert_eq!(error.expect("no number").kind(), ErrorKind::Rejected);
    let error = db.write().query("SELECT $1::text[]", params![vec![1]]).await.expect_err("numbers");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
}
