//! What a stored value looks like on the wire. The format is specified, with vectors, in `docs/formats/cache.md`.
//!
//! The fixed part comes first and at fixed offsets, so that a store can compare a version or a position inside its own
//! script without understanding the rest. Times are durations and instants of the *store's* clock: clients' clocks
//! never meet. Whatever does not read as this layout is a miss, never an error.

use bytes::Bytes;
use resonant_common::join::Position;

use crate::squeeze;

/// The first byte of this layout. Not ASCII and not the start of any UTF-8 text, so plain values never read as one.
const LAYOUT: u8 = 0xA1;
/// Bytes before the optional parts.
const FIXED: usize = 22;
/// The most tags one value carries.
pub(crate) const MAX_TAGS: usize = 16;

const NEGATIVE: u8 = 1;
const NO_EXPIRY: u8 = 1 << 1;
const POSITION: u8 = 1 << 2;
const TAGS: u8 = 1 << 3;
const COMPRESSED: u8 = 1 << 4;
const KNOWN: u8 = NEGATIVE | NO_EXPIRY | POSITION | TAGS | COMPRESSED;
const MAX_U40: u64 = (1 << 40) - 1;

/// Which write of a key made what is stored: 48 random bits, compared for equality only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version([u8; 6]);

impl Version {
    /// As it stands in stored bytes.
    pub fn as_bytes(&self) -> &[u8; 6] {
        &self.0
    }

    /// A version nobody has had before, as far as chance goes.
    pub(crate) fn random() -> Self {
        let [a, b, c, d, e, f, _, _] = rand::random::<u64>().to_be_bytes();
        Self([a, b, c, d, e, f])
    }
}

/// A tag as values carry it: XXH64 of its name. Two names with one hash invalidate each other's values, which is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagId(pub u64);

impl TagId {
    /// The tag `name`.
    pub fn of(name: &str) -> Self {
        Self(resonant_common::hash::key_hash(name.as_bytes()))
    }
}

/// What stands before the value's own bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// Codec and schema, hashed.
    pub(crate) fingerprint: u32,
    /// Which write made it.
    pub(crate) version: Version,
    /// When, in milliseconds of the store's clock. Kept to its low 40 bits, so it means something only as [an
    /// age](Head::age).
    pub(crate) written_at: u64,
    /// For how many milliseconds it is fresh; `None` for ever. Kept to 40 bits.
    pub(crate) fresh_ms: Option<u64>,
    /// Whether it says that there is no value.
    pub(crate) negative: bool,
    /// The place in the database's history it was read at.
    pub(crate) position: Option<Position>,
    /// The namespace's epoch when its load began.
    pub(crate) epoch: u64,
    /// Its tags.
    pub(crate) tags: Vec<TagId>,
}

impl Head {
    /// Head and payload as one buffer. `encode` writes the payload, which is compressed if it is longer than `compress_above`.
    pub(crate) fn seal<E>(
        &self,
        compress_above: Option<usize>,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Sealed, E> {
        let mut out = Vec::with_capacity(128);
        self.write(&mut out);
        let start = out.len();
        encode(&mut out)?;
        let payload = out.len() - start;
        if compress_above.is_some_and(|most| payload > most)
            && let Some(block) = squeeze::compress(&out[start..])
        {
            out.truncate(start);
            out[1] |= COMPRESSED;
            put_varint(&mut out, payload as u64);
            out.extend_from_slice(&block);
        }
        // To size: what a buffer that grew has left over would be held for as long as the value, and not accounted for.
        Ok(Sealed { bytes: Bytes::from(out.into_boxed_slice()), payload })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let tags = &self.tags[..self.tags.len().min(MAX_TAGS)];
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.push(LAYOUT);
        out.push(
            flag(self.negative, NEGATIVE)
                | flag(self.fresh_ms.is_none(), NO_EXPIRY)
                | flag(self.position.is_some(), POSITION)
                | flag(!tags.is_empty(), TAGS),
        );
        out.extend_from_slice(&self.fingerprint.to_be_bytes());
        out.extend_from_slice(&self.version.0);
        put_u40(out, self.written_at);
        put_u40(out, self.fresh_ms.unwrap_or_default().min(MAX_U40));
        if let Some(position) = &self.position {
            out.extend_from_slice(&position.system.to_be_bytes());
            out.extend_from_slice(&position.timeline.to_be_bytes());
            out.extend_from_slice(&position.offset.to_be_bytes());
        }
        put_varint(out, self.epoch);
        if !tags.is_empty() {
            // At most MAX_TAGS, which fits.
            out.push(u8::try_from(tags.len()).unwrap_or_default());
            for tag in tags {
                out.extend_from_slice(&tag.0.to_be_bytes());
            }
        }
    }
}

impl Head {
    /// How many milliseconds ago it was written by the store's clock, which may count from any start: only the low 40
    /// bits are compared. What was written up to 17 years ahead of `clock` was written just now, by a client whose
    /// estimate of that clock is ahead of ours.
    pub(crate) fn age(&self, clock: u64) -> u64 {
        let age = clock.wrapping_sub(self.written_at) & MAX_U40;
        if age > MAX_U40 / 2 { 0 } else { age }
    }
}

/// An encoded value with its head.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    pub(crate) bytes: Bytes,
    /// The length of the value's own bytes.
    pub(crate) payload: usize,
}

impl Sealed {
    /// A value without a head.
    pub(crate) fn plain<E>(encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Self, E> {
        let mut out = Vec::new();
        encode(&mut out)?;
        let payload = out.len();
        Ok(Self { bytes: Bytes::from(out.into_boxed_slice()), payload })
    }
}

/// The value's own bytes, as they were stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload {
    bytes: Bytes,
    /// How long they are without their compression.
    inflated: Option<u64>,
}

impl Payload {
    /// Bytes without a head.
    pub(crate) fn plain(bytes: Bytes) -> Self {
        Self { bytes, inflated: None }
    }

    /// The bytes for the codec; `None` if they are compressed and are not what they say, or are longer than `limit`.
    pub(crate) fn inflate(self, limit: usize) -> Option<Bytes> {
        match self.inflated {
            None => Some(self.bytes),
            Some(length) => squeeze::inflate(&self.bytes, length, limit).map(Bytes::from),
        }
    }
}

/// Head and payload of `bytes`; `None` if they are not of this layout.
pub(crate) fn open(bytes: &Bytes) -> Option<(Head, Payload)> {
    let mut rest = Reader(bytes);
    let (layout, flags) = (rest.u8()?, rest.u8()?);
    if layout != LAYOUT || flags & !KNOWN != 0 {
        return None;
    }
    let fingerprint = u32::from_be_bytes(rest.take()?);
    let version = Version(rest.take()?);
    let written_at = rest.u40()?;
    let fresh_ms = Some(rest.u40()?).filter(|_| flags & NO_EXPIRY == 0);
    let position = if flags & POSITION == 0 { None } else { Some(rest.position()?) };
    let epoch = rest.varint()?;
    let mut tags = Vec::new();
    if flags & TAGS != 0 {
        let count = usize::from(rest.u8()?);
        if !(1..=MAX_TAGS).contains(&count) {
            return None;
        }
        for _ in 0..count {
            tags.push(TagId(u64::from_be_bytes(rest.take()?)));
        }
    }
    let negative = flags & NEGATIVE != 0;
    let inflated = if flags & COMPRESSED == 0 { None } else { Some(rest.varint()?) };
    let payload = Payload { bytes: bytes.slice(bytes.len() - rest.0.len()..), inflated };
    let head = Head { fingerprint, version, written_at, fresh_ms, negative, position, epoch, tags };
    Some((head, payload))
}

/// The version of stored bytes, for a store's compare-and-set; `None` if they are not of this layout.
///
/// It stands at offset 6 and is 6 bytes long.
pub fn version(bytes: &[u8]) -> Option<Version> {
    if bytes.first() != Some(&LAYOUT) || bytes.len() < FIXED {
        return None;
    }
    Some(Version(bytes.get(6..12)?.try_into().ok()?))
}

/// The low 40 bits.
fn put_u40(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes()[3..]);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // The low seven bits, and the bit that says more follow.
        out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u40(&mut self) -> Option<u64> {
        let [a, b, c, d, e] = self.take()?;
        Some(u64::from_be_bytes([0, 0, 0, a, b, c, d, e]))
    }

    fn position(&mut self) -> Option<Position> {
        Some(Position {
            system: u64::from_be_bytes(self.take()?),
            timeline: u32::from_be_bytes(self.take()?),
            offset: u64::from_be_bytes(self.take()?),
        })
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << shift;
            if shifted >> shift != bits {
                return None;
            }
            value |= shifted;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn sealed(head: &Head, payload: &[u8]) -> Bytes {
        let Ok(sealed) = head.seal(None, |out| {
            out.extend_from_slice(payload);
            Ok::<_, Infallible>(())
        });
        assert_eq!(sealed.payload, payload.len());
        sealed.bytes
    }

    fn plain() -> Head {
        Head {
            fingerprint: 0x0102_0304,
            version: Version([1, 2, 3, 4, 5, 6]),
            written_at: 1_000,
            fresh_ms: Some(60_000),
            negative: false,
            position: None,
            epoch: 0,
            tags: Vec::new(),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The vectors of `docs/formats/cache.md`, and that they stand there.
    #[test]
    fn golden_vectors_hold_for_ever() {
        let rich = Head {
            position: Some(Position { system: 7301, timeline: 2, offset: 400 }),
            epoch: 300,
            tags: vec![TagId::of("team:1"), TagId::of("team:2")],
            ..plain()
        };
        let negative = Head { negative: true, fresh_ms: Some(10_000), ..plain() };
        let for_ever = Head { fresh_ms: None, ..plain() };
        let vectors = [
            ("plain", plain(), b"7".as_slice(), "a1000102030401020304050600000003e8000000ea600037"),
            (
                "rich",
                rich,
                b"{}",
                "a10c0102030401020304050600000003e8000000ea600000000000001c85000000020000000000000190ac0202fa4e58f0f43569f1cff12d652e026e507b7d",
            ),
            ("negative", negative, b"", "a1010102030401020304050600000003e8000000271000"),
            ("for-ever", for_ever, b"7", "a1020102030401020304050600000003e800000000000037"),
        ];
        // Absent from a packaged crate.
        let paper = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/formats/cache.md");
        let paper = std::fs::read_to_string(paper).ok();
        for (name, head, payload, expected) in vectors {
            let bytes = sealed(&head, payload);
            assert_eq!(hex(&bytes), expected, "{name}");
            assert_eq!(open(&bytes), Some((head, Payload::plain(Bytes::copy_from_slice(payload)))));
            let row = format!("| `{name}` | `{expected}` |");
            assert!(paper.as_ref().is_none_or(|paper| paper.contains(&row)), "it lacks {row}");
        }
        assert_eq!(sealed(&plain(), b"").len(), 23, "the plain head");
        let json = crate::codec::fingerprint("json", "");
        assert_eq!(format!("{json:08x}"), "c008005b");
    }

    #[test]
    fn the_version_stands_where_stores_look_for_it() {
        let bytes = sealed(&plain(), b"x");
        assert_eq!(version(&bytes), Some(Version([1, 2, 3, 4, 5, 6])));
        assert_eq!(version(b"{\"json\":true,\"long\":\"enough\"}"), None);
    }

    #[test]
    fn ages_are_right_whatever_the_stores_clock_counts_from() {
        for written_at in [0, 1_000, MAX_U40 - 1, MAX_U40 + 1, 1_795_000_000_000, u64::MAX - 9_000]
        {
            let Some((head, _)) = open(&sealed(&Head { written_at, ..plain() }, b"7")) else {
                panic!("it is of this layout")
            };
            for (later, age) in [(0, 0), (1, 1), (9_000, 9_000)] {
                assert_eq!(head.age(written_at + later), age, "written at {written_at}");
            }
            assert_eq!(head.age(written_at.wrapping_sub(50)), 0, "by a clock that is ahead");
        }
    }

    prop_compose! {
        fn any_head()(
            fingerprint: u32, version: [u8; 6], written_at in 0..=MAX_U40,
            fresh_ms in prop::option::of(0..=MAX_U40), negative: bool,
            position in prop::option::of(any::<(u64, u32, u64)>()), epoch: u64,
            tags in prop::collection::vec(any::<u64>(), 0..=MAX_TAGS),
        ) -> Head {
            Head {
                fingerprint, version: Version(version), written_at, fresh_ms, negative, epoch,
                position: position.map(|(system, timeline, offset)| Position { system, timeline, offset }),
                tags: tags.into_iter().map(TagId).collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn every_head_round_trips(head in any_head(), payload: Vec<u8>) {
            let bytes = sealed(&head, &payload);
            prop_assert_eq!(version(&bytes), Some(head.version));
            prop_assert_eq!(open(&bytes), Some((head, Payload::plain(Bytes::from(payload)))));
        }

        #[test]
        fn foreign_bytes_are_a_miss(bytes: Vec<u8>) {
            prop_assume!(bytes.first() != Some(&LAYOUT));
            prop_assert_eq!(open(&Bytes::from(bytes)), None);
        }
    }

    #[cfg(feature = "compression")]
    #[test]
    fn a_long_value_is_compressed_and_comes_back() {
        // The vector of `docs/formats/cache.md`: what others wrote must be read; how small they made it is theirs.
        let vector = "a1100102030401020304050600000003e8000000ea6000641f7701004a60777777777777";
        let bytes: Vec<u8> = (0..vector.len() / 2)
            .filter_map(|at| u8::from_str_radix(&vector[2 * at..2 * at + 2], 16).ok())
            .collect();
        let Some((head, payload)) = open(&Bytes::from(bytes)) else {
            panic!("it is of this layout")
        };
        assert_eq!(head, plain());
        assert_eq!(payload.clone().inflate(100).as_deref(), Some(&b"w".repeat(100)[..]));
        assert_eq!(payload.inflate(99), None, "longer than allowed");
        let Ok(sealed) = plain().seal(Some(99), |out| {
            out.extend_from_slice(&b"w".repeat(100));
            Ok::<_, Infallible>(())
        });
        assert_eq!(hex(&sealed.bytes), vector);
        assert_eq!(sealed.payload, 100);
        let paper = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/formats/cache.md");
        let row = format!("| `compressed` | `{vector}` |");
        let paper = std::fs::read_to_string(paper).ok();
        assert!(paper.is_none_or(|paper| paper.contains(&row)), "it lacks {row}");
    }

    #[test]
    fn a_later_layout_or_flag_is_a_miss() {
        let mut bytes = sealed(&plain(), b"7").to_vec();
        bytes[1] |= 1 << 5;
        assert_eq!(open(&Bytes::from(bytes.clone())), None);
        bytes[0] = LAYOUT + 1;
        assert_eq!(open(&Bytes::from(bytes)), None);
    }
}
