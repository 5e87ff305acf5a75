//! Answers: rows as the driver keeps them, read when somebody asks.
//!
//! Numbers, texts and bytes are read where they lie. Types without a kind of their own are rendered as text once, when
//! the answer is put together.

use std::ops::Range;
use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Kind, Type};

use crate::backend::{Column, RowBlock};
use crate::{Rows, ValueRef};

use super::param::base;
use super::render::{self, Fault, NOT_UTF8};

/// How the values of a column are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Text,
    /// Text behind a byte that says the version.
    VersionedText,
    Bytes,
    /// Rendered, at this place among the rendered ones of its row.
    Decimal(usize),
    Array(usize),
    Rendered(usize),
}

impl Shape {
    fn of(declared: &Type, rendered: &mut usize) -> Self {
        let declared = base(declared);
        let mut place = || {
            *rendered += 1;
            *rendered - 1
        };
        match *declared {
            Type::BOOL => Self::Bool,
            Type::INT2 => Self::Int2,
            Type::INT4 => Self::Int4,
            Type::INT8 => Self::Int8,
            Type::OID | Type::XID | Type::CID => Self::Oid,
            Type::FLOAT4 => Self::Float4,
            Type::FLOAT8 => Self::Float8,
            Type::TEXT
            | Type::VARCHAR
            | Type::BPCHAR
            | Type::NAME
            | Type::JSON
            | Type::XML
            | Type::UNKNOWN => Self::Text,
            Type::JSONB => Self::VersionedText,
            Type::BYTEA => Self::Bytes,
            Type::NUMERIC => Self::Decimal(place()),
            _ if matches!(declared.kind(), Kind::Enum(_)) => Self::Text,
            _ if matches!(declared.kind(), Kind::Array(_)) => Self::Array(place()),
            _ => Self::Rendered(place()),
        }
    }
}

/// The bytes of a value, whatever its type; nothing for NULL.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn raw(row: &Row, column: usize) -> Result<Option<&[u8]>, Fault> {
    match row.try_get::<_, Option<Raw<'_>>>(column) {
        Ok(value) => Ok(value.map(|value| value.0)),
        Err(_) => Err("the driver cannot find it"),
    }
}

struct Block {
    rows: Vec<Row>,
    shapes: Arc<[Shape]>,
    /// How many columns are rendered.
    width: usize,
    text: String,
    /// Where each rendered value lies in the text, row by row.
    places: Vec<Result<Range<usize>, Fault>>,
}

/// What the answers of a statement have in common.
#[derive(Clone)]
pub(super) struct Layout {
    columns: Arc<[Column]>,
    shapes: Arc<[Shape]>,
    width: usize,
}

impl Layout {
    pub(super) fn of(columns: &[tokio_postgres::Column]) -> Self {
        let mut width = 0;
        Self {
            columns: columns.iter().map(|column| Column::new(column.name())).collect(),
            shapes: columns.iter().map(|column| Shape::of(column.type_(), &mut width)).collect(),
            width,
        }
    }

    /// The rows of an answer; their columns are those the layout is of.
    pub(super) fn rows(&self, columns: &[tokio_postgres::Column], rows: Vec<Row>) -> Rows {
        let (shapes, width) = (Arc::clone(&self.shapes), self.width);
        let mut block = Block { rows, shapes, width, text: String::new(), places: Vec::new() };
        if width > 0 {
            block.render(columns);
        }
        Rows::shared(Arc::clone(&self.columns), block)
    }
}

/// The rows of an answer with these columns.
pub(super) fn rows(columns: &[tokio_postgres::Column], rows: Vec<Row>) -> Rows {
    Layout::of(columns).rows(columns, rows)
}

impl Block {
    fn render(&mut self, columns: &[tokio_postgres::Column]) {
        self.places.reserve_exact(self.width * self.rows.len());
        for row in &self.rows {
            for (column, shape) in self.shapes.iter().enumerate() {
                if !matches!(shape, Shape::Array(_) | Shape::Decimal(_) | Shape::Rendered(_)) {
                    continue;
                }
                let start = self.text.len();
                let written = raw(row, column).and_then(|raw| match (raw, shape) {
                    (None, _) => Ok(()),
                    (Some(raw), Shape::Decimal(_)) => render::numeric_of(raw, &mut self.text),
                    (Some(raw), _) => render::render(columns[column].type_(), raw, &mut self.text),
                });
                if written.is_err() {
                    self.text.truncate(start);
                }
                self.places.push(written.map(|()| start..self.text.len()));
            }
        }
    }

    fn rendered(&self, row: usize, place: usize) -> Result<&str, Fault> {
        let place = self.places.get(row * self.width + place).ok_or("it was not rendered")?;
        Ok(&self.text[place.clone()?])
    }
}

impl RowBlock for Block {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn type_name(&self, column: usize) -> Option<&str> {
        Some(self.rows.first()?.columns().get(column)?.type_().name())
    }

    fn value(&self, row: usize, column: usize) -> Result<ValueRef<'_>, Fault> {
        let Some(raw) = raw(&self.rows[row], column)? else { return Ok(ValueRef::Null) };
        Ok(match self.shapes[column] {
            Shape::Bool => ValueRef::Bool(fixed::<1>(raw)? != [0]),
            Shape::Int2 => ValueRef::Int(i16::from_be_bytes(fixed(raw)?).into()),
            Shape::Int4 => ValueRef::Int(i32::from_be_bytes(fixed(raw)?).into()),
            Shape::Int8 => ValueRef::Int(i64::from_be_bytes(fixed(raw)?)),
            Shape::Oid => ValueRef::Int(u32::from_be_bytes(fixed(raw)?).into()),
            Shape::Float4 => ValueRef::Float(f32::from_be_bytes(fixed(raw)?).into()),
            Shape::Float8 => ValueRef::Float(f64::from_be_bytes(fixed(raw)?)),
            Shape::Text => ValueRef::Text(std::str::from_utf8(raw).map_err(|_| NOT_UTF8)?),
            Shape::VersionedText => {
                let raw = raw.get(1..).ok_or("it is empty")?;
                ValueRef::Text(std::str::from_utf8(raw).map_err(|_| NOT_UTF8)?)
            }
            Shape::Bytes => ValueRef::Bytes(raw),
            Shape::Decimal(place) => ValueRef::Decimal(self.rendered(row, place)?),
            Shape::Array(place) => ValueRef::Array(self.rendered(row, place)?),
            Shape::Rendered(place) => ValueRef::Text(self.rendered(row, place)?),
        })
    }
}

fn fixed<const N: usize>(raw: &[u8]) -> Result<[u8; N], Fault> {
    raw.try_into().map_err(|_| "its size is not that of its type")
}
