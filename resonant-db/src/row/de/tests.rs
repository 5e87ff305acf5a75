use std::collections::BTreeMap;

use serde::Deserialize;

use crate::backend::{Column, RowsBuilder};
use crate::{ErrorKind, Result, Rows, ValueRef};

fn rows(columns: &[&str], values: &[ValueRef<'_>]) -> Rows {
    let mut builder = RowsBuilder::new(columns.iter().map(|name| Column::new(*name)).collect());
    values.iter().for_each(|value| builder.push(*value));
    builder.finish()
}

#[derive(Debug, PartialEq, Deserialize)]
struct User {
    id: u32,
    name: Name,
    #[serde(default)]
    admin: bool,
    note: Option<String>,
    #[serde(rename = "plan")]
    level: Plan,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Name(String);

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Plan {
    Free,
    Paid,
}

const COLUMNS: [&str; 5] = ["plan", "id", "name", "note", "admin"];

fn user() -> [ValueRef<'static>; 5] {
    use ValueRef::{Int, Null, Text};
    [Text("paid"), Int(7), Text("Ada"), Null, Int(1)]
}

#[test]
fn structs_take_columns_by_name() -> Result<()> {
    let ada = User { id: 7, name: Name("Ada".into()), admin: true, note: None, level: Plan::Paid };
    assert_eq!(rows(&COLUMNS, &user()).decode::<User>()?, [ada]);
    Ok(())
}

#[test]
fn tuples_and_scalars_take_columns_by_position() -> Result<()> {
    use ValueRef::{Bytes, Float, Int, Null, Text};
    let pairs = rows(&["a", "b"], &[Int(1), Text("x"), Int(2), Null]);
    assert_eq!(pairs.decode::<(i64, Option<String>)>()?, [(1, Some("x".into())), (2, None)]);
    assert_eq!(pairs.decode::<(i64,)>().expect_err("two columns").kind(), ErrorKind::Decode);
    assert!(pairs.decode::<i64>().is_err());
    assert_eq!(rows(&["n"], &[Int(3), Int(4)]).decode::<u8>()?, [3, 4]);
    assert_eq!(rows(&["n"], &[Null, Int(4)]).decode::<Option<i128>>()?, [None, Some(4)]);
    assert_eq!(rows(&["n"], &[Float(0.5), Int(2)]).decode::<f32>()?, [0.5, 2.0]);
    assert_eq!(rows(&["n"], &[Text("ä")]).decode::<char>()?, ['ä']);
    assert_eq!(rows(&["n"], &[Text("free")]).decode::<Plan>()?, [Plan::Free]);
    assert_eq!(rows(&["n"], &[Text("x")]).decode::<Name>()?, [Name("x".into())]);
    assert_eq!(rows(&["n"], &[Bytes(b"\x01\xff")]).decode::<(Vec<u8>,)>()?, [(vec![1, 255],)]);
    Ok(())
}

#[test]
fn maps_and_optional_structs_work() -> Result<()> {
    let map = rows(&["a", "b"], &[ValueRef::Int(1), ValueRef::Int(2)])
        .decode::<BTreeMap<String, i64>>()?;
    assert_eq!(map, [BTreeMap::from([("a".into(), 1), ("b".into(), 2)])]);
    assert!(rows(&COLUMNS, &user()).decode::<Option<User>>()?[0].is_some());
    Ok(())
}

#[test]
fn errors_name_the_column_and_never_the_value() {
    let cases: [(usize, ValueRef<'_>, &str); 4] = [
        (0, ValueRef::Text("s3cr3t"), "one of [\"free\", \"paid\"] is expected"),
        (1, ValueRef::Int(-424_242), "u32 is expected, found a whole number that does not fit"),
        (2, ValueRef::Int(424_242), "a string is expected, found a whole number"),
        (4, ValueRef::Text("s3cr3t"), "a boolean is expected, found text"),
    ];
    for (column, value, expected) in cases {
        let mut values = user();
        values[column] = value;
        let text = rows(&COLUMNS, &values).decode::<User>().expect_err("bad value").to_string();
        assert!(text.contains(&format!("column {:?}", COLUMNS[column])), "{text}");
        assert!(text.contains(expected) && text.contains("User"), "{text}");
        assert!(!text.contains("s3cr3t") && !text.contains("424242"), "{text}");
    }
    let text =
        rows(&["id"], &[ValueRef::Int(1)]).decode::<User>().expect_err("missing").to_string();
    assert!(text.contains("no column \"name\""), "{text}");
    let twice = rows(&["id", "id"], &[ValueRef::Int(1), ValueRef::Int(1)]);
    assert!(twice.decode::<User>().expect_err("twice").to_string().contains("alias"));
}

#[test]
fn a_types_own_error_does_not_carry_the_value_out() {
    #[derive(Debug)]
    struct Picky;
    impl<'de> Deserialize<'de> for Picky {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            Err(serde::de::Error::custom(format!("cannot use {text}")))
        }
    }
    let error =
        rows(&["secret"], &[ValueRef::Text("s3cr3t")]).decode::<Picky>().expect_err("picky");
    assert!(!error.to_string().contains("s3cr3t"), "{error}");
}
