//! `uuid`.

use ::uuid::Uuid;

use crate::{Param, ValueRef};

super::foreign!(Uuid, "UUID": |value| Param::Uuid(*value.as_bytes()), |text| Uuid::try_parse(text).ok(),
    ValueRef::Bytes(bytes) => Uuid::from_slice(bytes).ok(),);
