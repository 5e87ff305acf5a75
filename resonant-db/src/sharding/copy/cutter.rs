//! Data of a COPY, cut into rows and dealt to the shards of their keys.
//!
//! The cutter reads rows exactly as the server does, or refuses them: were a row end seen where the server sees none, a row
//! would land on the wrong shard. It is fed pieces of any size and looks at each byte once.

use std::borrow::Cow;

use super::binary::Tuples;
use super::line::{Line, unescaped, unquoted};
use super::statement::{Copy, Format};
use crate::Param;
use crate::sharding::key::{KeyFault, ShardKey};
use crate::sharding::refusal::{Checked, Refusal};

/// The longest row.
const ROW_BYTES: usize = 64 << 20;

/// Who owns a key.
pub(super) trait Places {
    fn place(&self, key: &ShardKey<'_>) -> Checked<u32>;
}

/// What is ready to be sent to each shard.
#[derive(Debug)]
pub(super) struct Parcels {
    /// What every shard is sent first.
    pub(super) head: Vec<u8>,
    /// What every shard is sent last.
    pub(super) tail: &'static [u8],
    pub(super) shards: Box<[Vec<u8>]>,
}

/// Why the data cannot be dealt; `row` counts from 1, with the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) row: u64,
    pub(super) reason: Cow<'static, str>,
}

pub(super) type Cut<T = ()> = Result<T, Cow<'static, str>>;

#[derive(Debug)]
pub(super) struct Cutter<'a, P> {
    copy: &'a Copy,
    places: P,
    /// The beginning of a row whose end has not come yet.
    rest: Vec<u8>,
    rows: u64,
    reader: Reader,
}

#[derive(Debug)]
enum Reader {
    Lines { line: Line, header: bool, ended: bool, crlf: bool },
    Tuples(Tuples),
}

impl<'a, P: Places> Cutter<'a, P> {
    pub(super) fn new(copy: &'a Copy, places: P) -> Self {
        let reader = match copy.format {
            Format::Binary => Reader::Tuples(Tuples::default()),
            _ => Reader::Lines {
                line: Line::default(),
                header: copy.header,
                ended: false,
                crlf: false,
            },
        };
        Self { copy, places, rest: Vec::new(), rows: 0, reader }
    }

    /// Deals what is whole of the data so far.
    pub(super) fn push(&mut self, data: &[u8], parcels: &mut Parcels) -> Result<(), Fault> {
        let mut rest = std::mem::take(&mut self.rest);
        let done = if rest.is_empty() {
            let done = self.deal(data, parcels);
            done.map(|taken| self.rest.extend_from_slice(data.get(taken..).unwrap_or_default()))
        } else {
            rest.extend_from_slice(data);
            let done = self.deal(&rest, parcels);
            done.map(|taken| {
                rest.drain(..taken);
                self.rest = rest;
            })
        };
        let checked = done.and_then(|()| match self.rest.len() > ROW_BYTES {
            true => Err(format!("the row is longer than {ROW_BYTES} bytes").into()),
            false => Ok(()),
        });
        checked.map_err(|reason| Fault { row: self.rows + 1, reason })
    }

    /// Deals a last row without an end, and says how many rows there were, the header aside.
    pub(super) fn finish(&mut self, parcels: &mut Parcels) -> Result<u64, Fault> {
        let open = match &self.reader {
            Reader::Lines { ended: true, .. } => None,
            Reader::Lines { crlf, .. } => {
                let end: &[u8] = if *crlf { b"\r\n" } else { b"\n" };
                Some(end).filter(|_| !self.rest.is_empty())
            }
            Reader::Tuples(tuples) => {
                if !tuples.ended() {
                    let reason = "the data end before the trailer of the binary format".into();
                    return Err(Fault { row: self.rows + 1, reason });
                }
                None
            }
        };
        if let Some(end) = open {
            self.push(end, parcels)?;
            if !self.rest.is_empty() {
                let reason = "the data end within a row".into();
                return Err(Fault { row: self.rows + 1, reason });
            }
        }
        Ok(self.rows - u64::from(self.copy.header && self.rows > 0))
    }

    /// Deals the rows that are whole; how many bytes these are.
    fn deal(&mut self, data: &[u8], parcels: &mut Parcels) -> Cut<usize> {
        let mut taken = 0;
        loop {
            let rest = data.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(taken);
            }
            match &mut self.reader {
                Reader::Tuples(tuples) => {
                    let Some((size, key)) = tuples.next(rest, self.copy, parcels)? else {
                        return Ok(taken);
                    };
                    let row = rest.get(..size).unwrap_or_default();
                    if let Some(key) = key {
                        let key = binary_key(self.copy, row.get(key).unwrap_or_default())?;
                        let shard = self.places.place(&key).map_err(said)?;
                        parcels.put(shard, row);
                        self.rows += 1;
                    }
                    taken += size;
                }
                Reader::Lines { ended: true, .. } => {
                    return match rest.iter().all(u8::is_ascii_whitespace) {
                        true => Ok(data.len()),
                        false => Err("data follow the end marker \\.".into()),
                    };
                }
                Reader::Lines { line, header, ended, crlf } => {
                    let Some(size) = line.advance(rest, self.copy)? else { return Ok(taken) };
                    let row = rest.get(..size).unwrap_or_default();
                    let line = std::mem::take(line);
                    *crlf = line.crlf;
                    taken += size;
                    if matches!(row, b"\\.\n" | b"\\.\r\n") {
                        if matches!(self.copy.format, Format::Csv { .. }) {
                            return Err("\\. alone in a row ends the data to some servers".into());
                        }
                        *ended = true;
                        continue;
                    }
                    if std::mem::take(header) {
                        parcels.head.extend_from_slice(row);
                    } else {
                        let key = line.key.filter(|_| line.field + 1 == self.copy.width);
                        let key = key.ok_or_else(|| self.miscounted(line.field + 1))?;
                        let shard = self.shard(row.get(key).unwrap_or_default())?;
                        parcels.put(shard, row);
                    }
                    self.rows += 1;
                }
            }
        }
    }

    fn miscounted(&self, fields: usize) -> Cow<'static, str> {
        format!("the row has {fields} fields and the COPY lists {} columns", self.copy.width).into()
    }

    /// The shard of a key as it is written.
    fn shard(&self, written: &[u8]) -> Cut<u32> {
        let text = match &self.copy.format {
            Format::Text { null, .. } | Format::Csv { null, .. } if *written == **null => None,
            Format::Text { .. } => Some(unescaped(written)),
            Format::Csv { quote, escape, .. } => Some(unquoted(written, *quote, *escape)),
            Format::Binary => Some(Cow::Borrowed(written)),
        };
        let Some(text) = text else {
            return Err("the key is NULL, and a NULL belongs to no shard".into());
        };
        let text = std::str::from_utf8(&text).map_err(|_| "the key is not UTF-8")?;
        let placed = self.copy.key_type.read(text, |key| self.places.place(&key));
        placed.map_err(no_key)?.map_err(said)
    }
}

fn no_key(fault: KeyFault) -> Cow<'static, str> {
    format!("the row has no key: {fault}").into()
}

fn said(refusal: Refusal) -> Cow<'static, str> {
    refusal.to_string().into()
}

fn binary_key<'k>(copy: &Copy, bytes: &'k [u8]) -> Cut<ShardKey<'k>> {
    use crate::sharding::key::KeyType;
    let whole = || match *bytes {
        [a, b] => Some(i16::from_be_bytes([a, b]).into()),
        [a, b, c, d] => Some(i32::from_be_bytes([a, b, c, d]).into()),
        [a, b, c, d, e, f, g, h] => Some(i64::from_be_bytes([a, b, c, d, e, f, g, h])),
        _ => None,
    };
    let param = match copy.key_type {
        KeyType::Int => Param::Int(whole().ok_or("the key is no whole number of 2, 4 or 8 bytes")?),
        KeyType::Text => {
            Param::Text(std::str::from_utf8(bytes).map_err(|_| "the key is not UTF-8")?)
        }
        KeyType::Bytes | KeyType::Uuid => Param::Bytes(bytes),
    };
    copy.key_type.key(param).map_err(no_key)
}

impl Parcels {
    pub(super) fn new(shards: u32, copy: &Copy) -> Self {
        let tail: &[u8] = match copy.format {
            Format::Binary => &[0xff, 0xff],
            _ => &[],
        };
        Self { head: Vec::new(), tail, shards: vec![Vec::new(); shards as usize].into() }
    }

    fn put(&mut self, shard: u32, row: &[u8]) {
        // The router's answers are below the number of shards.
        if let Some(parcel) = self.shards.get_mut(shard as usize) {
            parcel.extend_from_slice(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sharding::copy::statement;
    use crate::sharding::key::KeyType;
    use crate::sharding::schema::Schema;

    const SHARDS: u32 = 3;

    /// The shard of a text is its length.
    #[derive(Debug)]
    struct ByLength;

    impl Places for ByLength {
        fn place(&self, key: &ShardKey<'_>) -> Checked<u32> {
            Ok(key.with_bytes(|bytes| bytes.len() as u32 % SHARDS))
        }
    }

    fn copy(sql: &str) -> Copy {
        let mut schema = Schema::default();
        schema.add_table("t", "k", KeyType::Text).expect("a table");
        statement::read(sql, &schema).unwrap_or_else(|refusal| panic!("{sql}: {refusal}"))
    }

    /// Deals data in pieces of a size.
    fn dealt(sql: &str, data: &[u8], piece: usize) -> Result<(u64, Vec<String>), Fault> {
        let copy = copy(sql);
        let (mut parcels, mut cutter) = (Parcels::new(SHARDS, &copy), Cutter::new(&copy, ByLength));
        for piece in data.chunks(piece.max(1)) {
            cutter.push(piece, &mut parcels)?;
        }
        let rows = cutter.finish(&mut parcels)?;
        let parts = parcels.shards.iter().map(|part| String::from_utf8_lossy(part).into_owned());
        Ok((rows, parts.collect()))
    }

    const TEXT: &str = "COPY t (n, k) FROM STDIN";
    const CSV: &str = "COPY t (k, n) FROM STDIN (FORMAT csv, HEADER)";

    #[test]
    fn rows_go_to_their_shards_whole_whatever_the_pieces() {
        let text = b"1\tabc\n2\t\\x41\\102\n3\ta\\\nb\n4\ta\\tbc\n5\t\n\\.\n\n";
        for piece in 1..text.len() {
            let (rows, parts) = dealt(TEXT, text, piece).expect("dealt");
            assert_eq!(rows, 5);
            assert_eq!(parts[0], "1\tabc\n3\ta\\\nb\n5\t\n", "in pieces of {piece}");
            assert_eq!(parts[1], "4\ta\\tbc\n");
            assert_eq!(parts[2], "2\t\\x41\\102\n");
        }
        let csv = b"k,n\r\nabc,1\r\n\"a\"\"\r\n\",\"x,y\"\r\n\"\",3\r\nab,4";
        for piece in 1..csv.len() {
            let (rows, parts) = dealt(CSV, csv, piece).expect("dealt");
            assert_eq!(rows, 4);
            assert_eq!(parts[0], "abc,1\r\n\"\",3\r\n", "in pieces of {piece}");
            assert_eq!(parts[1], "\"a\"\"\r\n\",\"x,y\"\r\n");
            assert_eq!(parts[2], "ab,4\r\n");
        }
    }

    #[test]
    fn what_the_server_might_read_otherwise_is_refused_with_its_row() {
        for (sql, data, row) in [
            (TEXT, &b"1\ta\n2\t\\N\n"[..], 2),
            (TEXT, b"1\ta\n2\n", 2),
            (TEXT, b"1\ta\tb\n", 1),
            (TEXT, b"1\ta\rb\n", 1),
            (TEXT, b"1\ta\r2\tb\r", 1),
            (TEXT, b"1\ta\\.b\n", 1),
            (TEXT, b"1\ta\n\\.\n1\tb\n", 2),
            (TEXT, b"1\ta\\", 1),
            (TEXT, b"1\t\\xff\n", 1),
            (CSV, b"k,n\na,1\n,2\n", 3),
            (CSV, b"k,n\n\"a,1\n", 2),
            (CSV, b"k,n\na\rb,1\n", 2),
            (CSV, b"k,n\n\\.\n", 2),
            ("COPY t (k) FROM STDIN (FORMAT binary)", b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", 1),
            ("COPY t (k) FROM STDIN (FORMAT binary)", b"k\n", 1),
        ] {
            for piece in 1..=data.len() {
                let fault = dealt(sql, data, piece).expect_err(&String::from_utf8_lossy(data));
                assert_eq!(fault.row, row, "{data:?}: {}", fault.reason);
            }
        }
    }

    #[test]
    fn tuples_go_to_their_shards_between_header_and_trailer() {
        let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        let head = data.len();
        for key in ["a", "bb", "ccc"] {
            data.extend_from_slice(&2_i16.to_be_bytes());
            data.extend_from_slice(&(key.len() as i32).to_be_bytes());
            data.extend_from_slice(key.as_bytes());
            data.extend_from_slice(&(-1_i32).to_be_bytes());
        }
        data.extend_from_slice(&(-1_i16).to_be_bytes());
        let copy = copy("COPY t (k, n) FROM STDIN (FORMAT binary)");
        for piece in 1..data.len() {
            let (mut parcels, mut cutter) =
                (Parcels::new(SHARDS, &copy), Cutter::new(&copy, ByLength));
            for piece in data.chunks(piece) {
                cutter.push(piece, &mut parcels).expect("dealt");
            }
            assert_eq!(cutter.finish(&mut parcels), Ok(3));
            assert_eq!((parcels.head.len(), parcels.tail), (head, &[0xff, 0xff][..]));
            let sizes: Vec<_> = parcels.shards.iter().map(Vec::len).collect();
            assert_eq!(sizes, [13, 11, 12]);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_told_apart_by_pieces(data: Vec<u8>, piece in 1_usize..40) {
            for sql in [TEXT, CSV, "COPY t (k) FROM STDIN (FORMAT csv, ESCAPE '!')"] {
                let whole = dealt(sql, &data, data.len());
                prop_assert_eq!(&dealt(sql, &data, piece), &whole);
            }
        }
    }
}
