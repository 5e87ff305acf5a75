//! A compiled route: which values decide the shard, and whether the statement can be cut into one per shard.

use std::sync::Arc;

use super::rows::RowSplit;
use crate::Param;
use crate::sharding::array::{NoArray, elements};
use crate::sharding::function::ShardBy;
use crate::sharding::key::{KeyFault, KeyType, OwnedKey, ShardKey};
use crate::sharding::refusal::{Checked, Refusal, refuse};

/// Whether a statement changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Access {
    /// It only reads.
    Read,
    /// It writes, or locks rows.
    Write,
}

/// A statement, proven: it touches only rows whose keys are among `keys`.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) access: Access,
    /// Every key value the proof rests on. None: the statement reads no sharded table.
    pub(crate) keys: Box<[KeyUse]>,
    pub(crate) split: Split,
    /// Where several shards answer: what they are asked, and how their answers become one.
    pub(crate) merge: Box<Merge>,
}

/// How the answers of several shards become one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Merge {
    /// What each shard is sent, where that is not the statement itself.
    pub(crate) sql: Option<Box<str>>,
    /// The same without a bound on the rows, where they are taken one by one and the statement has none.
    pub(crate) unbounded: Option<Box<str>>,
    /// What becomes of each column, where rows are folded.
    pub(crate) columns: Option<Box<[Part]>>,
    pub(crate) order: Box<[By]>,
    pub(crate) limit: Option<Count>,
    pub(crate) offset: Option<Count>,
    /// How many columns at the end were not asked for by the user.
    pub(crate) hidden: usize,
    /// Whether all rows are one group, which is there even when it is empty.
    pub(crate) single: bool,
}

/// A column of rows that are folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Its sum, over the hidden column that counts.
    Average {
        count: usize,
        /// What the statement calls it, where it gives it no name.
        text: Option<Box<str>>,
    },
    Fold(Fold, Proof),
    /// What rows have in common.
    Group(Proof),
}

/// An entry of ORDER BY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct By {
    pub(crate) place: Place,
    pub(crate) descending: bool,
    pub(crate) nulls_first: Option<bool>,
    pub(crate) proof: Proof,
}

/// Which column of a shard's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Column(usize),
    Hidden(usize),
}

/// Where it may be known from what the text of a column stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The statement asks for the order of bytes.
    Bytewise,
    /// The catalogue may know.
    Column {
        table: Box<str>,
        column: Box<str>,
    },
    None,
}

/// A number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    Literal(u64),
    /// The parameter at this index.
    Param(usize),
}

/// How a column of the answers of several shards becomes one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fold {
    Count,
    Max,
    Min,
    Sum,
}

/// One value that decides a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyUse {
    pub(crate) key_type: KeyType,
    pub(crate) source: KeySource,
    /// `table.column`, for people.
    pub(crate) label: Arc<str>,
}

/// Where a key value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeySource {
    Literal(OwnedKey),
    /// The parameter at this index.
    Param(usize),
    /// The elements of the array in the parameter at this index.
    Elements(usize),
}

/// What a key was found as.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found<'t, 'a> {
    /// Not in a list.
    Alone,
    /// An element of a list, as it is written there.
    Written(&'t str),
    /// An element of a list.
    Value(Param<'a>),
}

/// How a statement whose keys live on several shards can be cut up.
#[derive(Debug, Clone)]
pub(crate) enum Split {
    /// It cannot; the reason finishes "… because".
    No(&'static str),
    /// The same text goes to each shard; the parameters listed, in ascending order, stand in the key list alone and are
    /// nulled where the key is another shard's.
    Keys { alone: Box<[usize]> },
    /// Each shard gets its own rows of VALUES.
    Rows(RowSplit),
    /// Reads every shard: only by explicit request.
    Everywhere,
}

/// Where a statement goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Any one shard will do: it reads reference tables or none, or by lists of keys that are all empty.
    Any,
    /// One shard.
    One(u32),
    /// Several shards: it must be split, or refused.
    Several,
    /// All shards.
    Every,
}

impl Program {
    /// The target for these parameters.
    pub(crate) fn target(
        &self,
        function: &dyn ShardBy,
        shards: u32,
        params: &[Param<'_>],
    ) -> Checked<Target> {
        if matches!(self.split, Split::Everywhere) {
            return Ok(Target::Every);
        }
        let (mut home, mut several) = (None, false);
        for key in &self.keys {
            key.each(function, shards, params, &mut |shard, _| {
                several |= *home.get_or_insert(shard) != shard;
            })?;
        }
        Ok(match home {
            // Only lists without a key: the proof holds on any shard, where nothing is found.
            None => Target::Any,
            Some(_) if several => Target::Several,
            Some(shard) => Target::One(shard),
        })
    }

    /// Whether it names keys, and so may be sent to any shard where these turn out to be none.
    pub(crate) fn names_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whether it names one key, and so touches one bucket.
    pub(crate) fn names_one(&self) -> bool {
        match &*self.keys {
            [key] => !matches!(key.source, KeySource::Elements(_)),
            _ => false,
        }
    }

    /// The bytes this program occupies, for the cache's bound.
    pub(crate) fn heap_bytes(&self) -> usize {
        let keys: usize = self.keys.iter().map(KeyUse::heap_bytes).sum();
        let split = match &self.split {
            Split::Rows(rows) => rows.heap_bytes(),
            Split::Keys { alone } => size_of_val(&**alone),
            Split::No(_) | Split::Everywhere => 0,
        };
        size_of::<Self>() + keys + split + self.merge.heap_bytes()
    }
}

impl Merge {
    fn heap_bytes(&self) -> usize {
        let name = |proof: &Proof| match proof {
            Proof::Column { table, column } => table.len() + column.len(),
            Proof::Bytewise | Proof::None => 0,
        };
        let columns = self.columns.iter().flatten().map(|part| {
            size_of::<Part>()
                + match part {
                    Part::Fold(_, proof) | Part::Group(proof) => name(proof),
                    Part::Average { text, .. } => text.as_ref().map_or(0, |text| text.len()),
                }
        });
        let order = self.order.iter().map(|by| size_of::<By>() + name(&by.proof));
        let text: usize =
            [&self.sql, &self.unbounded].into_iter().flatten().map(|sql| sql.len()).sum();
        size_of::<Self>() + text + columns.sum::<usize>() + order.sum::<usize>()
    }
}

impl KeyUse {
    /// The shard of this key, which is one.
    pub(crate) fn shard(
        &self,
        function: &dyn ShardBy,
        shards: u32,
        params: &[Param<'_>],
    ) -> Checked<u32> {
        let key = match &self.source {
            KeySource::Literal(key) => key.as_key(),
            KeySource::Param(index) => {
                let value = self.given(*index, params)?;
                self.key_type.key(value).map_err(|fault| {
                    Refusal::new(
                        format!("parameter ${} is no key of {}", index + 1, self.label),
                        fault.to_string(),
                    )
                })?
            }
            KeySource::Elements(_) => return refuse("a list stands for one key", "name the key"),
        };
        place(function, shards, &key)
    }

    /// Hands on the shard of each key there is, and what it is an element of. NULLs in a list are equal to no key.
    pub(crate) fn each<'a>(
        &self,
        function: &dyn ShardBy,
        shards: u32,
        params: &[Param<'a>],
        visit: &mut dyn FnMut(u32, Found<'_, 'a>),
    ) -> Checked {
        let KeySource::Elements(index) = self.source else {
            visit(self.shard(function, shards, params)?, Found::Alone);
            return Ok(());
        };
        let no_array = || {
            Refusal::new(
                format!("parameter ${} is no array of keys of {}", index + 1, self.label),
                "give a vector, or text in PostgreSQL's notation, such as {1,2}",
            )
        };
        let text = match self.given(index, params)? {
            Param::Null => return Ok(()),
            Param::Text(text) => text,
            Param::Array(values) => {
                for value in values.values().filter(|value| *value != Param::Null) {
                    let key = self.key_type.key(value).map_err(|fault| self.odd(index, fault))?;
                    visit(place(function, shards, &key)?, Found::Value(value));
                }
                return Ok(());
            }
            _ => return Err(no_array()),
        };
        for element in elements(text).map_err(|NoArray| no_array())? {
            let element = element.map_err(|NoArray| no_array())?;
            let Some(text) = &element.text else { continue };
            let shard = self.key_type.read(text, |key| place(function, shards, &key));
            visit(shard.map_err(|fault| self.odd(index, fault))??, Found::Written(element.raw));
        }
        Ok(())
    }

    fn odd(&self, index: usize, fault: KeyFault) -> Refusal {
        let reason = format!("an element of parameter ${} is no key of {}", index + 1, self.label);
        Refusal::new(reason, fault.to_string())
    }

    fn given<'p>(&self, index: usize, params: &[Param<'p>]) -> Checked<Param<'p>> {
        params.get(index).copied().ok_or_else(|| {
            let reason =
                format!("parameter ${} is the key of {} and is missing", index + 1, self.label);
            Refusal::new(reason, "give it")
        })
    }

    fn heap_bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.source {
                KeySource::Literal(key) => key.heap_bytes(),
                KeySource::Param(_) | KeySource::Elements(_) => 0,
            }
    }
}

/// The shard of a key, checked against the number of shards.
pub(crate) fn place(function: &dyn ShardBy, shards: u32, key: &ShardKey<'_>) -> Checked<u32> {
    match function.shard(key) {
        Some(shard) if shard < shards => Ok(shard),
        Some(shard) => refuse(
            format!("the shard function {} answered {shard} of {shards} shards", function.name()),
            "correct it: answers count from 0",
        ),
        None => refuse(
            format!("the shard function {} has no shard for the key", function.name()),
            "add the key to the directory, or give it a default shard",
        ),
    }
}
