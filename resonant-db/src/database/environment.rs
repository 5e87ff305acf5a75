//! Settings from the environment.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde::de::value::{Error as Fault, MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use crate::{Error, ErrorKind, Result};

use super::config::DatabaseConfig;

/// What the variables of a service begin with, unless it says otherwise.
const PREFIX: &str = "RESONANT_DB_";

/// Settings that are made of settings: what their variables begin with, and where they are.
const GROUPS: [(&str, &[&str]); 3] = [
    ("pool_connect_backoff_", &["pool", "connect_backoff"]),
    ("pool_", &["pool"]),
    ("routing_", &["routing"]),
];

impl DatabaseConfig {
    /// Reads `RESONANT_DB_<FIELD>`, such as `RESONANT_DB_PRIMARY`, `RESONANT_DB_POOL_MAX_SIZE=20` or
    /// `RESONANT_DB_ROUTING_PROBE_INTERVAL=250ms`; what is absent keeps its default. Lists are separated by commas
    /// (`RESONANT_DB_REPLICAS`), zones are `node=zone,node=zone`, and nothing or `none` is null.
    ///
    /// What a URL leaves out, `PGUSER`, `PGPASSWORD`, `PGSSLMODE` and their like say, as for every PostgreSQL client.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] names the variable: an unknown field, a value of the wrong form, or a broken rule.
    pub fn from_env() -> Result<Self> {
        let vars = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::from_vars(PREFIX, vars)
    }

    /// The same from any list of variables, with a prefix of your own for each of several databases.
    ///
    /// ```
    /// # fn main() -> resonant_db::Result<()> {
    /// use resonant_db::DatabaseConfig;
    /// let vars = [("ORDERS_DB_PRIMARY", "postgresql://primary/orders"), ("ORDERS_DB_POOL_MAX_SIZE", "20")];
    /// let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned()));
    /// let config = DatabaseConfig::from_vars("ORDERS_DB_", vars)?;
    /// assert_eq!(config.pool.map(|pool| pool.max_size), Some(20));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`from_env`](DatabaseConfig::from_env).
    pub fn from_vars(
        prefix: &str,
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self> {
        let mut fields = BTreeMap::new();
        for (name, value) in vars {
            let Some(field) = name.strip_prefix(prefix) else { continue };
            let field = field.to_ascii_lowercase();
            let group = GROUPS.iter().find(|(start, _)| field.starts_with(start));
            let (start, path) = group.copied().unwrap_or(("", &[]));
            let inner = field[start.len()..].to_owned();
            put(&mut fields, path, inner, Setting::Text { name, value });
        }
        let wrong =
            |fault: Fault| Error::new(ErrorKind::Config, "from_env", format!("{prefix}…: {fault}"));
        let config = Self::deserialize(Setting::Group(fields)).map_err(wrong)?;
        if let Some(pool) = &config.pool {
            pool.validate()?;
        }
        config.routing.validate()?;
        Ok(config)
    }
}

fn put(fields: &mut BTreeMap<String, Setting>, path: &[&str], field: String, setting: Setting) {
    let Some((first, rest)) = path.split_first() else {
        fields.insert(field, setting);
        return;
    };
    let group =
        fields.entry((*first).to_owned()).or_insert_with(|| Setting::Group(BTreeMap::new()));
    if let Setting::Group(inner) = group {
        put(inner, rest, field, setting);
    }
}

/// A variable, or several that make up a setting.
#[derive(Debug)]
enum Setting {
    Text { name: String, value: String },
    Group(BTreeMap<String, Setting>),
}

impl Setting {
    fn parse<T: FromStr>(&self, what: &str) -> Result<T, Fault> {
        let parsed = match self {
            Self::Text { value, .. } => value.trim().parse().ok(),
            Self::Group(_) => None,
        };
        parsed.ok_or_else(|| self.refuse(what))
    }

    /// An error that names the variable, and not its value.
    fn refuse(&self, what: impl Display) -> Fault {
        let name = match self {
            Self::Text { name, .. } => name.as_str(),
            Self::Group(_) => "a group of variables",
        };
        de::Error::custom(format_args!("{name} is not {what}"))
    }

    fn is_nothing(&self) -> bool {
        matches!(self, Self::Text { value, .. } if value.is_empty() || value == "none")
    }
}

impl IntoDeserializer<'_, Fault> for Setting {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $what:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit(self.parse($what)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Setting {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Group(fields) => visitor.visit_map(MapDeserializer::new(fields.into_iter())),
            Self::Text { name, value } => visitor.visit_string(value).map_err(|_: Fault| {
                de::Error::custom(format_args!("{name} has not the form of its setting"))
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.is_nothing() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Self::Text { value, .. } = self else { return self.deserialize_any(visitor) };
        let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
        visitor.visit_seq(SeqDeserializer::new(parts.map(str::to_owned)))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Self::Text { name, value } = self else { return self.deserialize_any(visitor) };
        let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
        let pairs: Option<Vec<_>> = parts
            .map(|part| {
                part.rsplit_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
            })
            .collect();
        let pairs = pairs.ok_or_else(|| {
            de::Error::custom(format_args!("{name} is written key=value,key=value"))
        });
        visitor.visit_map(MapDeserializer::<_, Fault>::new(pairs?.into_iter()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let known = matches!(&self, Self::Text { value, .. } if variants.contains(&value.as_str()));
        match self {
            Self::Text { value, .. } if known => {
                visitor.visit_enum(IntoDeserializer::<Fault>::into_deserializer(value))
            }
            other => Err(other.refuse(format_args!("one of {}", variants.join(", ")))),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_bool(self.parse("true or false")?)
    }

    numbers! {
        deserialize_u8 visit_u8 "a whole number that fits";
        deserialize_u16 visit_u16 "a whole number that fits";
        deserialize_u32 visit_u32 "a whole number that fits";
        deserialize_u64 visit_u64 "a whole number that fits";
        deserialize_i8 visit_i8 "a whole number that fits";
        deserialize_i16 visit_i16 "a whole number that fits";
        deserialize_i32 visit_i32 "a whole number that fits";
        deserialize_i64 visit_i64 "a whole number that fits";
        deserialize_f32 visit_f32 "a number";
        deserialize_f64 visit_f64 "a number";
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests;
