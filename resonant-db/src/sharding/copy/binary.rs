//! Tuples of the binary format: a header, rows of sized fields, a trailer.

use std::ops::Range;

use super::cutter::{Cut, Parcels};
use super::statement::Copy;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

#[derive(Debug, Default)]
pub(super) struct Tuples {
    begun: bool,
    ended: bool,
    /// How far the tuple at hand was read: bytes, fields, and the key where it was met.
    at: usize,
    field: usize,
    key: Option<Range<usize>>,
}

impl Tuples {
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// The size of what comes next, and where the key stands in it if it is a tuple; `None` when not all of it is here.
    pub(super) fn next(
        &mut self,
        data: &[u8],
        copy: &Copy,
        parcels: &mut Parcels,
    ) -> Cut<Option<(usize, Option<Range<usize>>)>> {
        if self.ended {
            return Err("data follow the trailer of the binary format".into());
        }
        if !self.begun {
            let Some(size) = header(data)? else { return Ok(None) };
            parcels.head.extend_from_slice(data.get(..size).unwrap_or_default());
            self.begun = true;
            return Ok(Some((size, None)));
        }
        if self.at == 0 {
            let Some(count) = data.first_chunk::<2>() else { return Ok(None) };
            match i16::from_be_bytes(*count) {
                -1 => {
                    self.ended = true;
                    return Ok(Some((2, None)));
                }
                count if usize::try_from(count) == Ok(copy.width) => self.at = 2,
                _ => return Err("a row has not as many fields as the COPY lists columns".into()),
            }
        }
        while self.field < copy.width {
            let rest = data.get(self.at..).unwrap_or_default();
            let Some(size) = rest.first_chunk::<4>() else { return Ok(None) };
            let size = i32::from_be_bytes(*size);
            let length = match usize::try_from(size) {
                Ok(length) => length,
                Err(_) if size == -1 && self.field == copy.key => {
                    return Err("the key is NULL, and a NULL belongs to no shard".into());
                }
                Err(_) if size == -1 => 0,
                Err(_) => return Err("a field has a negative size".into()),
            };
            if rest.len() < 4 + length {
                return Ok(None);
            }
            if self.field == copy.key {
                self.key = Some(self.at + 4..self.at + 4 + length);
            }
            self.at += 4 + length;
            self.field += 1;
        }
        let done = std::mem::take(self);
        self.begun = true;
        Ok(Some((done.at, done.key)))
    }
}

/// The size of the header.
fn header(data: &[u8]) -> Cut<Option<usize>> {
    let known = data.len().min(SIGNATURE.len());
    if data.get(..known) != SIGNATURE.get(..known) {
        return Err("the data are not in the binary format of COPY".into());
    }
    let flags = data.get(SIGNATURE.len()..).and_then(<[u8]>::first_chunk::<4>);
    let extension = data.get(SIGNATURE.len() + 4..).and_then(<[u8]>::first_chunk::<4>);
    let (Some(flags), Some(extension)) = (flags, extension) else { return Ok(None) };
    if u32::from_be_bytes(*flags) != 0 {
        return Err("the binary data have flags that are not known".into());
    }
    match usize::try_from(u32::from_be_bytes(*extension)) {
        Ok(0) => Ok(Some(SIGNATURE.len() + 8)),
        _ => Err("the binary data have an extension of the header".into()),
    }
}
