//! Arrays as parameters.

use super::{Param, ToParam};

/// Several values of one type as one parameter: a vector of what is itself a parameter, such as
/// `params![vec![1, 2], vec![Some("a"), None]]`. A vector of `u8` is bytes and no array.
pub trait ArrayParam: Send + Sync {
    /// How many values there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at a place below [`len`](ArrayParam::len), counted from 0.
    fn get(&self, place: usize) -> Param<'_>;
}

impl dyn ArrayParam + '_ {
    /// The values one by one.
    pub(crate) fn values(&self) -> impl Iterator<Item = Param<'_>> {
        (0..self.len()).map(|place| self.get(place))
    }
}

impl PartialEq for dyn ArrayParam + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.values().eq(other.values())
    }
}

impl<T: ToParam + Send + Sync> ArrayParam for Vec<T> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn get(&self, place: usize) -> Param<'_> {
        self.as_slice().get(place).map_or(Param::Null, ToParam::to_param)
    }
}

/// The values of a type, and maybe NULL among them, as an array.
macro_rules! arrays_of {
    ($($type:ty),* $(,)?) => {$(
        $crate::param::arrays_of!(@one $type);
        $crate::param::arrays_of!(@one Option<$type>);
    )*};
    (@one $type:ty) => {
        impl $crate::ToParam for Vec<$type> {
            fn to_param(&self) -> $crate::Param<'_> {
                $crate::Param::Array(self)
            }
        }
    };
}
pub(crate) use arrays_of;

arrays_of!(bool, i8, i16, i32, i64, u16, u32, f32, f64, String, &str, Vec<u8>);
