//! Which occurrence a column belongs to.

use std::sync::Arc;

use sqlparser::ast::{Expr, Ident};

use super::folded;
use crate::sharding::key::KeyType;

/// A reference to a set of key values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Binding {
    /// Index into the analyser's roots.
    pub(super) root: usize,
    pub(super) key_type: KeyType,
}

/// One entry of a FROM clause.
#[derive(Debug)]
pub(super) struct Relation {
    /// What qualifies its columns.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The table it is, if it is one whose columns have their own names.
    pub(super) table: Option<Box<str>>,
    /// Whether an outer join can put NULLs in place of its rows.
    pub(super) nullable: bool,
}

#[derive(Debug)]
pub(super) enum Kind {
    Sharded {
        key: Box<str>,
        key_type: KeyType,
        label: Arc<str>,
        binding: Option<Binding>,
    },
    /// A reference table, or a subquery that was proven by itself; its columns that are bound keys.
    Opaque {
        keys: Vec<(String, Binding)>,
    },
}

/// The relations of a query and of the queries around it.
#[derive(Debug)]
pub(super) struct Scope<'p> {
    pub(super) outer: Option<&'p Scope<'p>>,
    pub(super) block: &'p Block<'p>,
}

/// The FROM clause of one query, flattened in the order it is written.
#[derive(Debug, Default)]
pub(super) struct Block<'a> {
    pub(super) relations: Vec<Relation>,
    pub(super) conjuncts: Vec<Conjunct<'a>>,
    /// Columns named in USING: an unqualified mention of them is the merged column.
    pub(super) using: Vec<String>,
    /// Whether all joins keep the rows of their left side as they are.
    pub(super) right_or_full: bool,
}

/// A condition that must hold, and for which relations it does.
#[derive(Debug)]
pub(super) struct Conjunct<'a> {
    pub(super) condition: Condition<'a>,
    pub(super) applies: std::ops::Range<usize>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Condition<'a> {
    Expr(&'a Expr),
    /// USING of the keys of two relations.
    Keys(usize, usize),
}

/// What a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// The key of the local sharded relation at this index.
    LocalKey(usize),
    /// A column that holds keys of a binding.
    Bound(Binding),
}

impl Relation {
    /// What the column `name` of this relation is, if it is a key.
    fn column(&self, index: usize, name: &str) -> Option<Column> {
        match &self.kind {
            Kind::Sharded { key, .. } => (**key == *name).then_some(Column::LocalKey(index)),
            Kind::Opaque { keys } => {
                keys.iter().find(|(key, _)| key == name).map(|(_, binding)| Column::Bound(*binding))
            }
        }
    }

    pub(super) fn binding(&self) -> Option<Binding> {
        match &self.kind {
            Kind::Sharded { binding, .. } => *binding,
            Kind::Opaque { .. } => None,
        }
    }
}

impl Block<'_> {
    /// Resolves an expression that is a bare column. `None`: it is no column, or none that is known to be a key.
    pub(super) fn resolve(&self, outer: Option<&Scope<'_>>, expr: &Expr) -> Option<Column> {
        match expr {
            Expr::Nested(inner) => self.resolve(outer, inner),
            Expr::Identifier(column) => self.unqualified(&folded(column)),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [qualifier, column] => self.qualified(outer, qualifier, column),
                [schema, table, column] => self.fully(schema, table, column),
                _ => None,
            },
            _ => None,
        }
    }

    /// A column with table and schema, of a table that stands in this query by that name and without another.
    fn fully(&self, schema: &Ident, table: &Ident, column: &Ident) -> Option<Column> {
        let (name, column) = (folded(table), folded(column));
        let full = format!("{}.{name}", folded(schema));
        let mut named = self.relations.iter().enumerate().filter(|(_, relation)| {
            relation.name == name && relation.table.as_deref() == Some(full.as_str())
        });
        match (named.next(), named.next()) {
            (Some((index, relation)), None) => relation.column(index, &column),
            _ => None,
        }
    }

    /// An unqualified column is looked for in this query alone: that an outer one is meant cannot be known without the
    /// columns of every table here.
    fn unqualified(&self, name: &str) -> Option<Column> {
        if self.using.iter().any(|merged| merged == name) {
            let all = self.relations.iter().all(
                |relation| matches!(&relation.kind, Kind::Sharded { key, .. } if **key == *name),
            );
            return (all && !self.right_or_full && !self.relations.is_empty())
                .then_some(Column::LocalKey(0));
        }
        let mut found = self.relations.iter().enumerate().filter_map(|(i, r)| r.column(i, name));
        match (found.next(), found.next()) {
            (Some(column), None) => Some(column),
            _ => None,
        }
    }

    fn qualified(
        &self,
        outer: Option<&Scope<'_>>,
        qualifier: &Ident,
        column: &Ident,
    ) -> Option<Column> {
        let (qualifier, column) = (folded(qualifier), folded(column));
        let mut named =
            self.relations.iter().enumerate().filter(|(_, relation)| relation.name == qualifier);
        match (named.next(), named.next()) {
            (Some((index, relation)), None) => relation.column(index, &column),
            (Some(_), Some(_)) => None,
            (None, _) => outer?.bound(&qualifier, &column).map(Column::Bound),
        }
    }
}

impl Scope<'_> {
    /// The binding of a qualified column of this query or of one around it.
    fn bound(&self, qualifier: &str, column: &str) -> Option<Binding> {
        let mut named = self.block.relations.iter().filter(|relation| relation.name == qualifier);
        match (named.next(), named.next()) {
            (Some(relation), None) => match relation.column(0, column)? {
                Column::LocalKey(_) => relation.binding(),
                Column::Bound(binding) => Some(binding),
            },
            (Some(_), Some(_)) => None,
            (None, _) => self.outer?.bound(qualifier, column),
        }
    }
}
