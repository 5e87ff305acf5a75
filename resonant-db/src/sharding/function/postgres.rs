//! PostgreSQL's hash of a row under `PARTITION BY HASH` on one column.
//!
//! The bytes of the value go through Bob Jenkins' lookup3 with a seed, the 64-bit result is combined with a constant,
//! and the partition is the combination modulo the number of partitions. Written from that description, for
//! little-endian servers; the vectors below come from a real server.

use super::ShardKey;

/// `HASH_PARTITION_SEED`.
const SEED: u64 = 0x7A5B_2236_7996_DCFD;
/// What combining with an empty row hash adds.
const COMBINE: u64 = 0x49A0_F4DD_15E5_A8E3;

/// The row hash PostgreSQL computes for a table partitioned by the hash of one column of the key's type; partition `r` of
/// modulus `m` holds the row when `postgres_hash(key) % m == r`.
///
/// Right for `int2`, `int4`, `int8`, `uuid`, `bytea`, and for `text` and `varchar` under deterministic collations of a
/// UTF-8 database.
///
/// ```
/// use resonant_db::sharding::{ShardKey, postgres_hash};
/// assert_eq!(postgres_hash(&ShardKey::Int(42)), 0xafd3_0d9a_116a_5a62);
/// ```
pub fn postgres_hash(key: &ShardKey<'_>) -> u64 {
    postgres_value_hash(key).wrapping_add(COMBINE)
}

/// What the type's own hash function answers with the seed of partitions.
pub(crate) fn postgres_value_hash(key: &ShardKey<'_>) -> u64 {
    match key {
        ShardKey::Int(number) => hash_int(*number),
        ShardKey::Text(text) => hash_bytes(text.as_bytes()),
        ShardKey::Uuid(bytes) => hash_bytes(bytes),
        ShardKey::Bytes(bytes) => hash_bytes(bytes),
    }
}

/// All integer types hash alike: the high half is folded into the low one so that small values of every width agree.
fn hash_int(number: i64) -> u64 {
    let bits = number.cast_unsigned();
    // Two halves of a 64-bit word.
    let (low, high) = ((bits & 0xFFFF_FFFF) as u32, (bits >> 32) as u32);
    let folded = low ^ if number >= 0 { high } else { !high };
    let mut state = State::seeded(4);
    state.a = state.a.wrapping_add(folded);
    state.finish()
}

fn hash_bytes(bytes: &[u8]) -> u64 {
    // Lengths past 4 GiB do not occur: the engine's limit is 1 GiB.
    let mut state = State::seeded(bytes.len() as u32);
    let mut blocks = bytes.chunks_exact(12);
    for block in &mut blocks {
        state.absorb(block, 0);
        state.mix();
    }
    // The lowest byte of `c` is left to the length.
    state.absorb(blocks.remainder(), 8);
    state.finish()
}

struct State {
    a: u32,
    b: u32,
    c: u32,
}

impl State {
    fn seeded(length: u32) -> Self {
        let start = 0x9E37_79B9_u32.wrapping_add(length).wrapping_add(3_923_095);
        let mut state = Self { a: start, b: start, c: start };
        state.a = state.a.wrapping_add((SEED >> 32) as u32);
        state.b = state.b.wrapping_add((SEED & 0xFFFF_FFFF) as u32);
        state.mix();
        state
    }

    /// Adds up to twelve little-endian bytes, those of `c` shifted left by `shift` bits.
    fn absorb(&mut self, bytes: &[u8], shift: u32) {
        for (at, byte) in bytes.iter().enumerate() {
            let byte = u32::from(*byte);
            let within = 8 * (at as u32 % 4);
            match at / 4 {
                0 => self.a = self.a.wrapping_add(byte << within),
                1 => self.b = self.b.wrapping_add(byte << within),
                _ => self.c = self.c.wrapping_add(byte << (within + shift)),
            }
        }
    }

    fn mix(&mut self) {
        let Self { a, b, c } = self;
        for (x, y, z, by) in
            [(0, 2, 1, 4), (1, 0, 2, 6), (2, 1, 0, 8), (0, 2, 1, 16), (1, 0, 2, 19), (2, 1, 0, 4)]
        {
            let mut words = [*a, *b, *c];
            words[x] = words[x].wrapping_sub(words[y]) ^ words[y].rotate_left(by);
            words[y] = words[y].wrapping_add(words[z]);
            [*a, *b, *c] = words;
        }
    }

    fn finish(self) -> u64 {
        let mut words = [self.a, self.b, self.c];
        for (x, y, by) in
            [(2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24)]
        {
            words[x] = (words[x] ^ words[y]).wrapping_sub(words[y].rotate_left(by));
        }
        (u64::from(words[1]) << 32) | u64::from(words[2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Taken from PostgreSQL 15 with `satisfies_hash_partition`: accumulated hash and remainders modulo 4 and 4096.
    #[test]
    fn it_agrees_with_a_real_server() {
        let mut one = [0; 16];
        one[15] = 1;
        let vectors = [
            (ShardKey::Int(0), 0x0c84_40b7_4fd6_99b0_u64, 0, 2480),
            (ShardKey::Int(1), 0x9c77_15e2_970a_8fb8, 0, 4024),
            (ShardKey::Int(-1), 0x0400_bc25_1f3b_afa5, 1, 4005),
            (ShardKey::Int(42), 0xafd3_0d9a_116a_5a62, 2, 2658),
            (ShardKey::Int(i64::MAX), 0x8e2a_2eec_347a_3a76, 2, 2678),
            (ShardKey::Int(i64::MIN), 0xf5aa_185b_5e7f_a17f, 3, 383),
            (ShardKey::Text(""), 0xfa84_31e8_6a25_68a6, 2, 2214),
            (ShardKey::Text("org_123"), 0xd209_1002_d0c4_4ff8, 0, 4088),
            (ShardKey::Text("tenant-42"), 0xf27b_f89b_eead_50f1, 1, 241),
            (ShardKey::Text("żółć"), 0x83fb_2339_ce2b_5836, 2, 2102),
            (ShardKey::Uuid(one), 0x92a3_7067_1f3a_8e2d, 1, 3629),
        ];
        for (key, hash, of_four, of_4096) in vectors {
            let got = postgres_hash(&key);
            assert_eq!((got, got % 4, got % 4096), (hash, of_four, of_4096), "{key:?}");
        }
    }
}
