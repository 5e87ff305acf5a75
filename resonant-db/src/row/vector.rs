//! Vectors from arrays.

use crate::row::de::array_elements;

/// A value read from the text an engine writes for an element of an array.
pub(crate) trait FromText: Sized {
    fn from_text(text: &str) -> Option<Self>;
}

macro_rules! parsed {
    ($($type:ty),*) => {$(
        impl FromText for $type {
            fn from_text(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        }
    )*};
}

parsed!(i8, i16, i32, i64, u16, u32, u64, f32, f64, String);

impl FromText for bool {
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "t" => Some(true),
            "f" => Some(false),
            _ => None,
        }
    }
}

/// The elements of an array of one dimension.
pub(crate) fn elements<T>(
    text: &str,
    mut read: impl FnMut(Option<&str>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut values = Vec::new();
    array_elements(text, |element| match read(element) {
        Some(value) => {
            values.push(value);
            true
        }
        None => false,
    })
    .then_some(values)
}

/// Vectors of a type, and of what may be NULL among them, as values of a row.
macro_rules! vectors_of {
    ($($type:ty),* $(,)?) => {$(
        impl<'a> $crate::FromValue<'a> for Vec<$type> {
            const EXPECTED: &'static str = "array of one dimension, without NULL";

            fn from_value(value: $crate::ValueRef<'a>) -> Option<Self> {
                let $crate::ValueRef::Array(text) = value else { return None };
                $crate::row::elements(text, |element| <$type as $crate::row::FromText>::from_text(element?))
            }
        }

        impl<'a> $crate::FromValue<'a> for Vec<Option<$type>> {
            const EXPECTED: &'static str = "array of one dimension";

            fn from_value(value: $crate::ValueRef<'a>) -> Option<Self> {
                let $crate::ValueRef::Array(text) = value else { return None };
                $crate::row::elements(text, |element| match element {
                    None => Some(None),
                    Some(text) => <$type as $crate::row::FromText>::from_text(text).map(Some),
                })
            }
        }
    )*};
}
pub(crate) use vectors_of;

vectors_of!(bool, i8, i16, i32, i64, u16, u32, u64, f32, f64, String);

#[cfg(test)]
mod tests {
    use crate::{FromValue, ValueRef};

    #[test]
    fn arrays_become_vectors() {
        let array = ValueRef::Array;
        assert_eq!(Vec::<i64>::from_value(array("{1,-2}")), Some(vec![1, -2]));
        assert_eq!(Vec::<i64>::from_value(array("{}")), Some(vec![]));
        assert_eq!(Vec::<bool>::from_value(array("{t,f}")), Some(vec![true, false]));
        let texts = Some(vec![Some("a \"b\"".to_owned()), None, Some("NULL".to_owned())]);
        assert_eq!(Vec::<Option<String>>::from_value(array(r#"{"a \"b\"",NULL,"NULL"}"#)), texts);
        assert_eq!(Vec::<i64>::from_value(array("{1,NULL}")), None);
        assert_eq!(Vec::<i64>::from_value(array("{1,x}")), None);
        assert_eq!(Vec::<i64>::from_value(array("{{1},{2}}")), None, "two dimensions");
        assert_eq!(Vec::<i64>::from_value(ValueRef::Text("{1}")), None, "text is not parsed");
    }
}
