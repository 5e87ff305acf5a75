//! What the router knows about the tables: which carry a key, which are the same on every shard.

use std::collections::{BTreeMap, BTreeSet};

use super::key::KeyType;

/// What speaks on the shards: engines differ on where NULLs are in an order, and on what an average is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Postgres,
    Sqlite,
}

/// A table that carries the shard key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// The column.
    pub(crate) key: Box<str>,
    pub(crate) key_type: KeyType,
}

/// The declared tables and functions. Names are held as the engines fold them: in lower case.
#[derive(Debug, Clone)]
pub(crate) struct Schema {
    tables: BTreeMap<Box<str>, Table>,
    references: BTreeSet<Box<str>>,
    functions: BTreeSet<Box<str>>,
    /// Tables the catalogue has with the key's column, and why they cannot be sharded by it.
    unfit: BTreeMap<Box<str>, Box<str>>,
    merge_rows: usize,
}

/// How many rows of several shards are held to be made one, unless told otherwise.
const MERGE_ROWS: usize = 1_000_000;

impl Default for Schema {
    fn default() -> Self {
        Self {
            tables: BTreeMap::new(),
            references: BTreeSet::new(),
            functions: BTreeSet::new(),
            unfit: BTreeMap::new(),
            merge_rows: MERGE_ROWS,
        }
    }
}

impl Schema {
    pub(crate) fn add_table(
        &mut self,
        name: &str,
        key: &str,
        key_type: KeyType,
    ) -> Result<(), String> {
        let (name, key) = (folded(name)?, folded(key)?);
        if self.references.contains(&name) || self.tables.contains_key(&name) {
            return Err(format!("table {name} is declared twice"));
        }
        self.tables.insert(name, Table { key, key_type });
        Ok(())
    }

    pub(crate) fn add_reference(&mut self, name: &str) -> Result<(), String> {
        let name = folded(name)?;
        if self.tables.contains_key(&name) || !self.references.insert(name.clone()) {
            return Err(format!("table {name} is declared twice"));
        }
        Ok(())
    }

    pub(crate) fn add_function(&mut self, name: &str) -> Result<(), String> {
        self.functions.insert(folded(name)?);
        Ok(())
    }

    pub(crate) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    pub(crate) fn is_reference(&self, name: &str) -> bool {
        self.references.contains(name)
    }

    /// Whether the user vouches for a function that is not on the built-in list.
    pub(crate) fn is_allowed_function(&self, name: &str) -> bool {
        self.functions.contains(name)
    }

    /// The distinct types of the keys.
    pub(crate) fn key_types(&self) -> Vec<KeyType> {
        let types: BTreeSet<_> = self.tables.values().map(|table| table.key_type).collect();
        types.into_iter().collect()
    }

    /// Adds a table the catalogue has, unless it is declared.
    pub(crate) fn learn(&mut self, name: &str, key: &str, found: Result<KeyType, String>) {
        let Ok(name) = folded(name).and_then(|folded| {
            if *folded == *name { Ok(folded) } else { Err("capitals".to_owned()) }
        }) else {
            return;
        };
        if self.tables.contains_key(&name) || self.references.contains(&name) {
            return;
        }
        match found {
            Ok(key_type) => {
                self.tables.insert(name, Table { key: key.into(), key_type });
            }
            Err(reason) => {
                self.unfit.insert(name, reason.into());
            }
        }
    }

    pub(crate) fn set_merge_rows(&mut self, most: usize) {
        self.merge_rows = most;
    }

    /// How many rows of several shards are held to be made one.
    pub(crate) fn merge_rows(&self) -> usize {
        self.merge_rows
    }

    /// Why a table of the catalogue is not among the sharded ones.
    pub(crate) fn unfit(&self, name: &str) -> Option<&str> {
        self.unfit.get(name).map(|reason| &**reason)
    }

    pub(crate) fn references(&self) -> impl Iterator<Item = &str> {
        self.references.iter().map(|name| &**name)
    }

    /// The names of all declared tables.
    pub(crate) fn all_tables(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().chain(&self.references).map(|name| &**name)
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = (&str, &Table)> {
        self.tables.iter().map(|(name, table)| (&**name, table))
    }
}

fn folded(name: &str) -> Result<Box<str>, String> {
    let plain = |part: &str| {
        part.len() <= 63
            && part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$')
    };
    if name.split('.').count() > 2 || !name.split('.').all(plain) {
        return Err(format!("{name:?} is no plain name of a table, column or function"));
    }
    Ok(name.to_ascii_lowercase().into())
}
