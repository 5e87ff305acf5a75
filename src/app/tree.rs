//! Settings as a tree that knows where each of them was given.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Mistake, Place};

/// A setting, or a table of them.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

#[derive(Clone)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// Text from the environment, which is read as whatever its setting wants.
    Loose(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

impl Value {
    /// What it is, without what it says.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) | Self::Loose(_) => "text",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Node {
    pub(super) fn table(place: Place) -> Self {
        Self { value: Value::Table(BTreeMap::new()), place }
    }

    /// Its tables and settings, if it is a table.
    pub(super) fn entries(&self) -> Option<&BTreeMap<String, Node>> {
        if let Value::Table(entries) = &self.value { Some(entries) } else { None }
    }

    pub(super) fn get(&self, path: &[String]) -> Option<&Node> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        match &self.value {
            Value::Table(entries) => entries.get(first)?.get(rest),
            Value::List(items) => items.get(first.parse::<usize>().ok()?)?.get(rest),
            _ => None,
        }
    }

    /// Takes a setting out, if it is there.
    pub(super) fn remove(&mut self, path: &[String]) -> bool {
        match (path, &mut self.value) {
            ([last], Value::Table(entries)) => entries.remove(last).is_some(),
            ([first, rest @ ..], Value::Table(entries)) => {
                entries.get_mut(first).is_some_and(|node| node.remove(rest))
            }
            ([first, rest @ ..], Value::List(items)) => match first.parse::<usize>() {
                Ok(index) if index < items.len() && rest.is_empty() => {
                    items.remove(index);
                    true
                }
                Ok(index) => items.get_mut(index).is_some_and(|node| node.remove(rest)),
                Err(_) => false,
            },
            _ => false,
        }
    }

    /// Puts a setting in, making the tables around it. What stands in the way is replaced.
    pub(super) fn put(&mut self, path: &[String], node: Node) {
        let Some((first, rest)) = path.split_first() else {
            *self = node;
            return;
        };
        if !matches!(self.value, Value::Table(_)) {
            *self = Self::table(node.place.clone());
        }
        if let Value::Table(entries) = &mut self.value {
            let inner =
                entries.entry(first.clone()).or_insert_with(|| Self::table(node.place.clone()));
            inner.put(rest, node);
        }
    }

    /// The path of the first setting called `name`, wherever it is.
    pub(super) fn find(&self, name: &str) -> Option<Vec<String>> {
        let entries = self.entries()?;
        if entries.contains_key(name) {
            return Some(vec![name.to_owned()]);
        }
        entries.iter().find_map(|(key, node)| {
            let mut path = node.find(name)?;
            path.insert(0, key.clone());
            Some(path)
        })
    }
}

/// Reads a file's text. What cannot be read is among the mistakes; the rest is read all the same.
pub(super) fn parse(text: &str, path: &Path, mistakes: &mut Vec<Mistake>) -> Node {
    let lines = Lines::of(text, path);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        // Not its Display, which shows the line.
        mistakes.push(Mistake {
            place: lines.place(error.span().unwrap_or_default()),
            key: String::new(),
            expected: format!("this is no TOML: {}", error.message().trim().replace('\n', "; ")),
        });
    }
    lines.table(table.into_inner(), Place::File(path.to_owned()))
}

/// A value written as TOML, such as `["a", "b"]`, for a setting given at `place`.
pub(super) fn value(text: &str, place: &Place) -> Option<Node> {
    let lines = Lines { starts: Vec::new(), path: Path::new(""), fixed: Some(place.clone()) };
    Some(lines.node(DeValue::parse(text).ok()?, 0..0))
}

struct Lines<'a> {
    starts: Vec<usize>,
    path: &'a Path,
    fixed: Option<Place>,
}

impl<'a> Lines<'a> {
    fn of(text: &str, path: &'a Path) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect();
        Self { starts, path, fixed: None }
    }

    fn place(&self, span: Range<usize>) -> Place {
        if let Some(place) = &self.fixed {
            return place.clone();
        }
        let line = self.starts.partition_point(|start| *start <= span.start);
        Place::Line(self.path.to_owned(), line)
    }

    fn table(&self, table: DeTable<'_>, place: Place) -> Node {
        let entries = table.into_iter().map(|(key, value)| {
            let span = key.span();
            (key.into_inner().into_owned(), self.node(value, span))
        });
        Node { value: Value::Table(entries.collect()), place }
    }

    fn node(&self, value: Spanned<DeValue<'_>>, key: Range<usize>) -> Node {
        let span = if key.is_empty() { value.span() } else { key };
        let place = self.place(span);
        let value = match value.into_inner() {
            DeValue::Table(table) => return self.table(table, place),
            DeValue::Array(items) => {
                Value::List(items.into_iter().map(|item| self.node(item, 0..0)).collect())
            }
            DeValue::Boolean(value) => Value::Bool(value),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::Int(number),
                    // Too large for what any setting takes: it is refused as text would be.
                    Err(_) => Value::Text(String::new()),
                }
            }
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => Value::Float(number),
                Err(_) => Value::Text(String::new()),
            },
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Datetime(_) => Value::Text(String::new()),
        };
        Node { value, place }
    }
}
