//! What a statement answers: rows that share their columns and decode a value when it is asked for.
//!
//! All rows of an answer live in one block, and a [`Row`] is a place in it: taking one out copies nothing. A backend
//! that wants to keep the engine's own bytes implements [`RowBlock`](crate::backend::RowBlock); one that copies values
//! out uses [`RowsBuilder`](crate::backend::RowsBuilder).
//!
//! `Debug` shows columns and counts, never a value.

mod block;
mod de;
mod value;
mod vector;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::{Error, ErrorKind, Result};

pub use self::block::{Column, ParamRows, RowBlock, RowsBuilder};
pub use self::value::{FromValue, ValueRef};
#[allow(unused_imports, reason = "used by the types of other crates, each behind a feature")]
pub(crate) use self::vector::{FromText, elements, vectors_of};

/// The block lies where the answer does: one allocation for both.
struct Answer<B: ?Sized = dyn RowBlock> {
    columns: Arc<[Column]>,
    block: B,
}

/// The rows a statement answered, in the engine's order.
#[derive(Clone)]
pub struct Rows {
    answer: Arc<Answer>,
    range: Range<usize>,
}

impl Rows {
    /// Rows over a backend's own block.
    pub fn new(columns: Vec<Column>, block: Box<dyn RowBlock>) -> Self {
        Self::shared(columns.into(), block)
    }

    /// The same, where answers share their columns.
    pub(crate) fn shared(columns: Arc<[Column]>, block: impl RowBlock) -> Self {
        let range = 0..block.len();
        Self { answer: Arc::new(Answer { columns, block }), range }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The columns, also when there is no row.
    pub fn columns(&self) -> &[Column] {
        &self.answer.columns
    }

    /// The row at a position, counted from 0.
    pub fn get(&self, index: usize) -> Option<Row> {
        (index < self.range.len())
            .then(|| Row { answer: Arc::clone(&self.answer), index: self.range.start + index })
    }

    /// The first row.
    pub fn first(&self) -> Option<Row> {
        self.get(0)
    }

    /// The rows one by one.
    pub fn iter(&self) -> RowsIter {
        RowsIter(self.clone())
    }

    /// All rows as values of `T`: a struct by column name, a tuple by position, a scalar from a single column.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] names the column and the types, never the value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        let mut decoded = Vec::with_capacity(self.len());
        for index in self.range.clone() {
            decoded.push(de::decode(&self.answer, index)?);
        }
        Ok(decoded)
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("len", &self.len())
            .field("columns", &Names(self.columns()))
            .finish()
    }
}

impl IntoIterator for Rows {
    type Item = Row;
    type IntoIter = RowsIter;

    fn into_iter(self) -> RowsIter {
        RowsIter(self)
    }
}

impl IntoIterator for &Rows {
    type Item = Row;
    type IntoIter = RowsIter;

    fn into_iter(self) -> RowsIter {
        self.iter()
    }
}

/// Iterator over [`Rows`].
#[derive(Debug, Clone)]
pub struct RowsIter(Rows);

impl Iterator for RowsIter {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let index = self.0.range.next()?;
        Some(Row { answer: Arc::clone(&self.0.answer), index })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.range.size_hint()
    }
}

impl ExactSizeIterator for RowsIter {}

/// One row. Cheap to clone; it keeps the whole answer it is part of alive.
#[derive(Clone)]
pub struct Row {
    answer: Arc<Answer>,
    index: usize,
}

impl Row {
    /// The columns of the row.
    pub fn columns(&self) -> &[Column] {
        &self.answer.columns
    }

    /// The value of a column, by name or by position counted from 0: `row.get::<i64>("id")?`.
    ///
    /// Where two columns have the same name the first is meant. Ask for an `Option` where the value may be NULL.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] when there is no such column or its value is not a `T`; the message names the column and
    /// both types, never the value.
    pub fn get<'r, T: FromValue<'r>>(&'r self, column: impl ColumnIndex) -> Result<T> {
        let Some(position) = column.find(&self.answer.columns) else {
            let message =
                format!("no column {}; there are: {:?}", column.show(), Names(self.columns()));
            return Err(Error::new(ErrorKind::Decode, "get", message));
        };
        let value = self.value(position)?;
        T::from_value(value).ok_or_else(|| {
            let message = format!(
                "column {} holds {}, which is no {} (for {}){}",
                self.answer.column(position),
                value.kind(),
                T::EXPECTED,
                std::any::type_name::<T>(),
                if matches!(value, ValueRef::Null) { "; ask for an Option" } else { "" }
            );
            Error::new(ErrorKind::Decode, "get", message)
        })
    }

    /// The row as a `T`: a struct by column name, a tuple by position, a scalar from a single column.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] names the column and the types, never the value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        de::decode(&self.answer, self.index)
    }

    /// The raw value of the column at a position counted from 0.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] when there is no such column or its bytes are not what its type says.
    pub fn value(&self, position: usize) -> Result<ValueRef<'_>> {
        if position >= self.answer.columns.len() {
            let message = format!("no column {position}; there are {}", self.answer.columns.len());
            return Err(Error::new(ErrorKind::Decode, "get", message));
        }
        self.answer.value(self.index, position)
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("columns", &Names(self.columns())).finish_non_exhaustive()
    }
}

impl Answer {
    fn value(&self, row: usize, column: usize) -> Result<ValueRef<'_>> {
        self.block.value(row, column).map_err(|fault| {
            let message = format!("column {}: {fault}", self.column(column));
            Error::new(ErrorKind::Decode, "get", message)
        })
    }

    /// A column as messages name it: with its type, where the engine says it.
    fn column(&self, column: usize) -> String {
        let name = self.columns[column].name();
        match self.block.type_name(column) {
            Some(declared) => format!("{name:?} of type {declared}"),
            None => format!("{name:?}"),
        }
    }
}

struct Names<'a>(&'a [Column]);

impl fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(Column::name)).finish()
    }
}

/// How a column is named: by its name or by its position counted from 0.
pub trait ColumnIndex: private::Sealed {}

impl ColumnIndex for usize {}
impl ColumnIndex for &str {}
impl ColumnIndex for &String {}

mod private {
    use super::Column;

    pub trait Sealed {
        fn find(&self, columns: &[Column]) -> Option<usize>;
        fn show(&self) -> String;
    }

    impl Sealed for usize {
        fn find(&self, columns: &[Column]) -> Option<usize> {
            (*self < columns.len()).then_some(*self)
        }
        fn show(&self) -> String {
            self.to_string()
        }
    }

    impl Sealed for &str {
        fn find(&self, columns: &[Column]) -> Option<usize> {
            columns.iter().position(|column| column.name() == *self)
        }
        fn show(&self) -> String {
            format!("{self:?}")
        }
    }

    impl Sealed for &String {
        fn find(&self, columns: &[Column]) -> Option<usize> {
            Sealed::find(&self.as_str(), columns)
        }
        fn show(&self) -> String {
            Sealed::show(&self.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Rows {
        let columns = ["id", "name", "note"].map(Column::new).into();
        let mut builder = RowsBuilder::new(columns);
        for (id, name) in [(1, "Ada"), (2, "Łukasz")] {
            builder.push(ValueRef::Int(id));
            builder.push(ValueRef::Text(name));
            builder.push(ValueRef::Null);
        }
        builder.finish()
    }

    #[test]
    fn values_are_found_by_name_and_position() -> Result<()> {
        let rows = sample();
        let row = rows.get(1).expect("two rows");
        assert_eq!(row.get::<i64>("id")?, 2);
        assert_eq!(row.get::<&str>(1)?, "Łukasz");
        assert_eq!(row.get::<Option<String>>("note")?, None);
        assert_eq!(rows.iter().len(), 2);
        assert!(rows.get(2).is_none());
        Ok(())
    }

    #[test]
    fn an_error_names_the_column_and_no_value() {
        let row = sample().first().expect("two rows");
        let text = row.get::<i64>("name").expect_err("text").to_string();
        assert!(
            text.contains("\"name\"") && text.contains("text") && !text.contains("Ada"),
            "{text}"
        );
        let text = row.get::<i64>("note").expect_err("null").to_string();
        assert!(text.contains("ask for an Option"), "{text}");
        let text = row.get::<i64>("nmae").expect_err("typo").to_string();
        assert!(text.contains("[\"id\", \"name\", \"note\"]"), "{text}");
        assert_eq!(row.get::<i64>(3).expect_err("too far").kind(), ErrorKind::Decode);
    }

    struct Nothing;

    impl RowBlock for Nothing {
        fn len(&self) -> usize {
            3
        }

        fn value(&self, _: usize, _: usize) -> Result<ValueRef<'_>, &'static str> {
            Ok(ValueRef::Null)
        }
    }

    #[test]
    fn an_answer_is_one_allocation_and_a_users_block_is_as_good() {
        let columns: Arc<[Column]> = Arc::new([Column::new("n")]);
        let cost = allocation_counter::measure(|| {
            let rows = Rows::shared(Arc::clone(&columns), Nothing);
            assert_eq!(rows.len(), 3);
        });
        assert_eq!(cost.count_total, 1, "{cost:?}");
        let rows = Rows::new(vec![Column::new("n")], Box::new(Nothing));
        let last = rows.get(2).expect("three rows");
        assert_eq!((rows.len(), last.get::<Option<i64>>("n").ok()), (3, Some(None)));
    }

    #[test]
    fn debug_shows_no_value() {
        let rows = sample();
        let shown = format!("{rows:?} {:?} {:?}", rows.first(), rows.iter());
        assert!(shown.contains("name") && !shown.contains("Ada"), "{shown}");
    }
}
