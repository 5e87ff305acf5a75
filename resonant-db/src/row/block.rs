//! Where values are kept: a backend's own block, or flat copies in three buffers.

use crate::{ArrayParam, Error, ErrorKind, Param, Result};

use super::Rows;
use super::value::ValueRef;

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    name: Box<str>,
}

impl Column {
    /// A column with its name.
    pub fn new(name: impl Into<Box<str>>) -> Self {
        Self { name: name.into() }
    }

    /// Its name, as the engine answered it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The rows of one answer in whatever form the backend keeps them.
///
/// # Contract
///
/// `len` never changes. `value` is called with a row below `len` and a column below the number of columns, from any
/// thread, possibly several times; it decodes without blocking. A fault is a text that says what is wrong with the
/// bytes and does not repeat them.
pub trait RowBlock: Send + Sync + 'static {
    /// How many rows there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Decodes the value at a row and column, both counted from 0.
    fn value(&self, row: usize, column: usize) -> std::result::Result<ValueRef<'_>, &'static str>;

    /// The engine's name for the type of a column, for messages; `None`, the default, where it is not known.
    fn type_name(&self, column: usize) -> Option<&str> {
        let _ = column;
        None
    }
}

#[deny(clippy::missing_trait_methods)]
impl<B: RowBlock + ?Sized> RowBlock for Box<B> {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn is_empty(&self) -> bool {
        (**self).is_empty()
    }

    fn value(&self, row: usize, column: usize) -> std::result::Result<ValueRef<'_>, &'static str> {
        (**self).value(row, column)
    }

    fn type_name(&self, column: usize) -> Option<&str> {
        (**self).type_name(column)
    }
}

/// Values copied one behind the other: numbers in place, text and bytes in one buffer each.
#[derive(Debug, Clone, Default)]
struct Cells {
    cells: Vec<Cell>,
    text: String,
    bytes: Vec<u8>,
    lists: Vec<Cells>,
}

#[derive(Debug, Clone, Copy)]
enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Array(usize, usize),
    Decimal(usize, usize),
    Text(usize, usize),
    Bytes(usize, usize),
    Unreadable(&'static str),
    /// A parameter that is no value of a row, and holds nothing borrowed.
    Param(Param<'static>),
    /// Several, at this place among the lists.
    List(usize),
}

impl Cells {
    fn push_param(&mut self, param: Param<'_>) {
        let value = match param {
            Param::Null => ValueRef::Null,
            Param::Bool(value) => ValueRef::Bool(value),
            Param::Int(value) => ValueRef::Int(value),
            Param::Float(value) => ValueRef::Float(value),
            Param::Text(value) => ValueRef::Text(value),
            Param::Bytes(value) => ValueRef::Bytes(value),
            Param::Array(values) => {
                let mut list = Self::default();
                for value in values.values() {
                    list.push_param(value);
                }
                self.lists.push(list);
                return self.cells.push(Cell::List(self.lists.len() - 1));
            }
            Param::Decimal(value) => return self.cells.push(Cell::Param(Param::Decimal(value))),
            Param::Uuid(value) => return self.cells.push(Cell::Param(Param::Uuid(value))),
            Param::Date(value) => return self.cells.push(Cell::Param(Param::Date(value))),
            Param::Time(value) => return self.cells.push(Cell::Param(Param::Time(value))),
            Param::Timestamp(value) => {
                return self.cells.push(Cell::Param(Param::Timestamp(value)));
            }
            Param::TimestampTz(value) => {
                return self.cells.push(Cell::Param(Param::TimestampTz(value)));
            }
        };
        self.push(value);
    }

    fn param(&self, index: usize) -> Param<'_> {
        match self.cells.get(index) {
            None => Param::Null,
            Some(Cell::Param(param)) => *param,
            Some(Cell::List(place)) => {
                self.lists.get(*place).map_or(Param::Null, |list| Param::Array(list))
            }
            Some(_) => self.get(index).map_or(Param::Null, Param::from),
        }
    }

    fn push(&mut self, value: ValueRef<'_>) {
        self.cells.push(match value {
            ValueRef::Null => Cell::Null,
            ValueRef::Bool(value) => Cell::Bool(value),
            ValueRef::Int(value) => Cell::Int(value),
            ValueRef::Float(value) => Cell::Float(value),
            ValueRef::Array(text) => {
                let start = self.text.len();
                self.text.push_str(text);
                Cell::Array(start, self.text.len())
            }
            ValueRef::Decimal(digits) => {
                let start = self.text.len();
                self.text.push_str(digits);
                Cell::Decimal(start, self.text.len())
            }
            ValueRef::Text(text) => {
                let start = self.text.len();
                self.text.push_str(text);
                Cell::Text(start, self.text.len())
            }
            ValueRef::Bytes(bytes) => {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(bytes);
                Cell::Bytes(start, self.bytes.len())
            }
        });
    }

    fn get(&self, index: usize) -> std::result::Result<ValueRef<'_>, &'static str> {
        Ok(match self.cells[index] {
            Cell::Null => ValueRef::Null,
            Cell::Bool(value) => ValueRef::Bool(value),
            Cell::Int(value) => ValueRef::Int(value),
            Cell::Float(value) => ValueRef::Float(value),
            Cell::Array(start, end) => ValueRef::Array(&self.text[start..end]),
            Cell::Decimal(start, end) => ValueRef::Decimal(&self.text[start..end]),
            Cell::Text(start, end) => ValueRef::Text(&self.text[start..end]),
            Cell::Bytes(start, end) => ValueRef::Bytes(&self.bytes[start..end]),
            Cell::Unreadable(fault) => return Err(fault),
            Cell::Param(_) | Cell::List(_) => return Err("it is a parameter"),
        })
    }

    fn size(&self) -> usize {
        let lists: usize = self.lists.iter().map(Self::size).sum();
        self.cells.len() * size_of::<Cell>() + self.text.len() + self.bytes.len() + lists
    }
}

impl ArrayParam for Cells {
    fn len(&self) -> usize {
        self.cells.len()
    }

    fn get(&self, place: usize) -> Param<'_> {
        self.param(place)
    }
}

/// Collects copied values into [`Rows`], value by value, row by row.
#[derive(Debug)]
pub struct RowsBuilder {
    columns: Vec<Column>,
    cells: Cells,
}

impl RowsBuilder {
    /// A builder for rows of these columns.
    pub fn new(columns: Vec<Column>) -> Self {
        Self { columns, cells: Cells::default() }
    }

    /// Adds the next value of the current row.
    pub fn push(&mut self, value: ValueRef<'_>) {
        self.cells.push(value);
    }

    /// Adds a value that cannot be read; who asks for it is told `fault`, others are not hurt.
    pub fn push_unreadable(&mut self, fault: &'static str) {
        self.cells.cells.push(Cell::Unreadable(fault));
    }

    /// The rows. A last row with too few values is left out.
    pub fn finish(self) -> Rows {
        let width = self.columns.len();
        let len = self.cells.cells.len().checked_div(width).unwrap_or(0);
        Rows::shared(self.columns.into(), Copied { width, len, cells: self.cells })
    }
}

struct Copied {
    width: usize,
    len: usize,
    cells: Cells,
}

impl RowBlock for Copied {
    fn len(&self) -> usize {
        self.len
    }

    fn value(&self, row: usize, column: usize) -> std::result::Result<ValueRef<'_>, &'static str> {
        self.cells.get(row * self.width + column)
    }
}

/// Rows of parameters, copied flat: what a bulk statement is run with.
#[derive(Debug, Clone, Default)]
pub struct ParamRows {
    width: usize,
    len: usize,
    cells: Cells,
}

impl ParamRows {
    /// No rows yet; all will have `width` parameters.
    pub fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    /// A single row.
    pub fn single(params: &[Param<'_>]) -> Self {
        let mut rows = Self { width: params.len(), len: 1, cells: Cells::default() };
        for param in params {
            rows.cells.push_param(*param);
        }
        rows
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rejected`] when it has another number of parameters than the first one.
    pub fn push(&mut self, params: &[Param<'_>]) -> Result<()> {
        if params.len() != self.width {
            let message = format!(
                "row {} has {} parameters, the first row has {}",
                self.len + 1,
                params.len(),
                self.width
            );
            return Err(Error::new(ErrorKind::Rejected, "execute_many", message));
        }
        for param in params {
            self.cells.push_param(*param);
        }
        self.len += 1;
        Ok(())
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many parameters each row has.
    pub fn width(&self) -> usize {
        self.width
    }

    /// About how many bytes the rows take.
    pub fn size(&self) -> usize {
        self.cells.size()
    }

    /// The parameter at a row and a position, both counted from 0; NULL outside.
    pub fn param(&self, row: usize, position: usize) -> Param<'_> {
        if row >= self.len || position >= self.width {
            return Param::Null;
        }
        self.cells.param(row * self.width + position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ToParam;

    #[test]
    fn rows_of_parameters_keep_their_values() -> Result<()> {
        let mut rows = ParamRows::new(3);
        rows.push(&[Param::Int(1), Param::Text("ä"), Param::Null])?;
        rows.push(&[Param::Float(0.5), Param::Text(""), Param::Bytes(b"\xff")])?;
        assert_eq!((rows.len(), rows.width()), (2, 3));
        assert_eq!(rows.param(0, 1), Param::Text("ä"));
        assert_eq!(rows.param(1, 1), Param::Text(""));
        assert_eq!(rows.param(1, 2), Param::Bytes(b"\xff"));
        assert_eq!(rows.param(2, 0), Param::Null);
        let list = vec![Some("a"), None];
        rows.push(&[Param::Uuid([7; 16]), list.to_param(), Param::TimestampTz(-1)])?;
        assert_eq!(rows.param(2, 0), Param::Uuid([7; 16]));
        assert_eq!(rows.param(2, 1), list.to_param());
        assert_eq!(rows.param(2, 2), Param::TimestampTz(-1));
        let error = rows.push(&[Param::Int(1)]).expect_err("too narrow");
        assert_eq!(error.kind(), ErrorKind::Rejected);
        Ok(())
    }

    #[test]
    fn an_unreadable_value_hurts_only_who_asks_for_it() {
        let mut builder = RowsBuilder::new(vec![Column::new("a"), Column::new("b")]);
        builder.push(ValueRef::Int(1));
        builder.push_unreadable("its text is not UTF-8");
        builder.push(ValueRef::Int(2)); // half a row
        let rows = builder.finish();
        assert_eq!(rows.len(), 1);
        let row = rows.first().expect("one row");
        assert_eq!(row.get::<i64>("a").ok(), Some(1));
        let text = row.get::<String>("b").expect_err("unreadable").to_string();
        assert!(text.contains("UTF-8") && text.contains("\"b\""), "{text}");
    }

    #[test]
    fn an_answer_without_columns_has_no_rows() {
        assert!(RowsBuilder::new(Vec::new()).finish().is_empty());
    }
}
