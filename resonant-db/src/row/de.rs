//! Serde from a row: structs and maps by column name, tuples by position, scalars from a single column.
//!
//! Serde's own messages quote the value they stumbled over. Ours must not, so [`Fault`] rewrites them all.

/// Gives every method of serde that asks for a number to a macro, with what it visits and its type.
macro_rules! every_number {
    ($build:ident) => {
        $build! {
            deserialize_i8 visit_i8 i8;
            deserialize_i16 visit_i16 i16;
            deserialize_i32 visit_i32 i32;
            deserialize_i64 visit_i64 i64;
            deserialize_i128 visit_i128 i128;
            deserialize_u8 visit_u8 u8;
            deserialize_u16 visit_u16 u16;
            deserialize_u32 visit_u32 u32;
            deserialize_u64 visit_u64 u64;
            deserialize_u128 visit_u128 u128;
            deserialize_f32 visit_f32 f32;
            deserialize_f64 visit_f64 f64;
        }
    };
}

mod array;

pub(super) use self::array::for_each as array_elements;

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::{Error, ErrorKind, Result};

use super::Answer;
use super::value::{FromValue, ValueRef};

/// Decodes the row at `index`.
pub(super) fn decode<T: DeserializeOwned>(answer: &Answer, index: usize) -> Result<T> {
    T::deserialize(RowDeserializer { answer, index }).map_err(|fault| {
        let target = std::any::type_name::<T>();
        let message = match fault.column {
            Some(column) => {
                format!("column {}: {}, for {target}", answer.column(column), fault.message)
            }
            None => format!("{}, for {target}", fault.message),
        };
        Error::new(ErrorKind::Decode, "decode", message)
    })
}

#[derive(Clone, Copy)]
struct RowDeserializer<'r> {
    answer: &'r Answer,
    index: usize,
}

impl<'r> RowDeserializer<'r> {
    fn value(self, column: usize) -> std::result::Result<ValueDeserializer<'r>, Fault> {
        match self.answer.block.value(self.index, column) {
            Ok(value) => Ok(ValueDeserializer(value)),
            Err(fault) => Err(Fault::new(fault).at(column)),
        }
    }

    /// The only column, for a scalar.
    fn only(self) -> std::result::Result<ValueDeserializer<'r>, Fault> {
        match self.answer.columns.len() {
            1 => self.value(0),
            count => Err(Fault::new(format!("one column is expected, there are {count}"))),
        }
    }

    fn columns(self) -> Columns<'r> {
        Columns { row: self, next: 0 }
    }
}

/// What a scalar asks of a row, it asks of the only column.
macro_rules! from_the_only_column {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Fault> {
            self.only()?.$method(visitor).map_err(|fault| fault.at(0))
        }
    )*};
}

impl<'de> Deserializer<'de> for RowDeserializer<'_> {
    type Error = Fault;

    from_the_only_column! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string
        deserialize_bytes deserialize_byte_buf deserialize_identifier
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Fault> {
        visitor.visit_map(self.columns())
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Fault> {
        visitor.visit_map(self.columns())
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> std::result::Result<V::Value, Fault> {
        visitor.visit_map(self.columns())
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Fault> {
        visitor.visit_seq(self.columns())
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> std::result::Result<V::Value, Fault> {
        match self.answer.columns.len() {
            count if count == len => visitor.visit_seq(self.columns()),
            count => Err(Fault::new(format!("{len} columns are expected, there are {count}"))),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> std::result::Result<V::Value, Fault> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> std::result::Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(
        self,
        visitor: V,
    ) -> std::result::Result<V::Value, Fault> {
        // Of a single column the value decides; a row of several is there.
        match self.answer.columns.len() {
            1 => self.only()?.deserialize_option(visitor).map_err(|fault| fault.at(0)),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> std::result::Result<V::Value, Fault> {
        self.only()?.deserialize_enum(name, variants, visitor).map_err(|fault| fault.at(0))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> std::result::Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(
        self,
        visitor: V,
    ) -> std::result::Result<V::Value, Fault> {
        visitor.visit_unit()
    }
}

/// The columns of a row, as a map or as a sequence.
struct Columns<'r> {
    row: RowDeserializer<'r>,
    next: usize,
}

impl<'de> MapAccess<'de> for Columns<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> std::result::Result<Option<K::Value>, Fault> {
        let Some(column) = self.row.answer.columns.get(self.next) else { return Ok(None) };
        let key: StrDeserializer<'_, Fault> = column.name().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> std::result::Result<V::Value, Fault> {
        let column = self.next;
        self.next += 1;
        seed.deserialize(self.row.value(column)?).map_err(|fault| fault.at(column))
    }
}

impl<'de> SeqAccess<'de> for Columns<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> std::result::Result<Option<T::Value>, Fault> {
        if self.next >= self.row.answer.columns.len() {
            return Ok(None);
        }
        self.next_value_seed(seed).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.row.answer.columns.len() - self.next)
    }
}

struct ValueDeserializer<'r>(ValueRef<'r>);

/// A number asks a decimal one for what it holds; other values go as they are.
macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Fault> {
            match (self.0, <$type as FromValue<'_>>::from_value(self.0)) {
                (ValueRef::Decimal(_), Some(value)) => visitor.$visit(value),
                (ValueRef::Decimal(_), None) => Err(Fault::new(
                    concat!("the decimal number is no ", stringify!($type)),
                )),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for ValueDeserializer<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Fault> {
        match self.0 {
            ValueRef::Null => visitor.visit_unit(),
            ValueRef::Bool(value) => visitor.visit_bool(value),
            ValueRef::Int(value) => visitor.visit_i64(value),
            ValueRef::Float(value) => visitor.visit_f64(value),
            ValueRef::Text(value) | ValueRef::Decimal(value) => visitor.visit_str(value),
            ValueRef::Array(value) => visitor.visit_seq(array::Elements::new(value)?),
            ValueRef::Bytes(value) => visitor.visit_bytes(value),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Fault> {
        match self.0 {
            ValueRef::Int(0) => visitor.visit_bool(false),
            ValueRef::Int(1) => visitor.visit_bool(true),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(
        self,
        visitor: V,
    ) -> std::result::Result<V::Value, Fault> {
        match self.0 {
            ValueRef::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> std::result::Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> std::result::Result<V::Value, Fault> {
        match self.0 {
            ValueRef::Text(value) => visitor.visit_enum(Variant(value)),
            value => {
                Err(Fault::new(format!("text is expected for an enum, found {}", value.kind())))
            }
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Fault> {
        match self.0 {
            ValueRef::Bytes(value) => {
                visitor.visit_seq(de::value::SeqDeserializer::new(value.iter().copied()))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier ignored_any
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Fault> {
        match self.0 {
            // As it stands, braces and all.
            ValueRef::Array(value) => visitor.visit_str(value),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(
        self,
        visitor: V,
    ) -> std::result::Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    every_number!(numbers);
}

/// The name of a unit variant.
struct Variant<'r>(&'r str);

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Fault;
    type Variant = UnitOnly;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> std::result::Result<(V::Value, UnitOnly), Fault> {
        let name: StrDeserializer<'_, Fault> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, UnitOnly))
    }
}

struct UnitOnly;

impl UnitOnly {
    fn refuse<T>() -> std::result::Result<T, Fault> {
        Err(Fault::new("a column holds only enum variants without fields"))
    }
}

impl<'de> de::VariantAccess<'de> for UnitOnly {
    type Error = Fault;

    fn unit_variant(self) -> std::result::Result<(), Fault> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        _seed: T,
    ) -> std::result::Result<T::Value, Fault> {
        Self::refuse()
    }
    fn tuple_variant<V: Visitor<'de>>(
        self,
        _len: usize,
        _visitor: V,
    ) -> std::result::Result<V::Value, Fault> {
        Self::refuse()
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> std::result::Result<V::Value, Fault> {
        Self::refuse()
    }
}

/// A decoding error that says where and what, and never repeats a value.
#[derive(Debug)]
struct Fault {
    column: Option<usize>,
    message: String,
}

impl Fault {
    fn new(message: impl Into<String>) -> Self {
        Self { column: None, message: message.into() }
    }

    fn at(self, column: usize) -> Self {
        Self { column: self.column.or(Some(column)), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    /// The text of a type's own error often quotes the value, so it is left out.
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self::new("the type's own Deserialize refused the value")
    }
    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("{expected} is expected, found {}", kind_of(found)))
    }
    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("{expected} is expected, found {} that does not fit", kind_of(found)))
    }
    fn invalid_length(found: usize, expected: &dyn de::Expected) -> Self {
        Self::new(format!("{expected} is expected, found {found} of them"))
    }
    fn unknown_variant(_found: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("one of {expected:?} is expected, found other text"))
    }
    fn unknown_field(found: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("column {found:?} is not one of {expected:?}"))
    }
    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("no column {field:?}"))
    }
    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("two columns {field:?}; give one an alias"))
    }
}

fn kind_of(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number",
        Unexpected::Float(_) => "a floating-point number",
        Unexpected::Char(_) | Unexpected::Str(_) => "text",
        Unexpected::Bytes(_) => "bytes",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "a sequence",
        Unexpected::Map => "a map",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests;
