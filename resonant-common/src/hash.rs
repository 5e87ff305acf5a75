//! The key hash: XXH64 with seed 0 over the key's bytes.
//!
//! It decides which partition a message and which bucket a row belongs to, so it is part of the wire format: the
//! golden vectors below hold for every version and every language. XXH64 is fast, stable, unkeyed and everywhere.
//! It is not a defence against keys chosen to collide; a hostile key can make its own partition hot, nothing more.

/// The hash of a key's bytes.
///
/// ```
/// assert_eq!(resonant_common::hash::key_hash(b"agent_123"), 0xce76_bfbc_e4e7_00fd);
/// ```
pub fn key_hash(key: &[u8]) -> u64 {
    twox_hash::XxHash64::oneshot(0, key)
}

/// The slot of a key among `slots`: the hash modulo the number of slots. Zero slots count as one.
///
/// ```
/// use resonant_common::hash::slot;
/// assert_eq!(slot(b"agent_123", 16), 13);
/// ```
pub fn slot(key: &[u8], slots: u32) -> u32 {
    // The remainder is below `slots`, so it fits.
    u32::try_from(key_hash(key) % u64::from(slots.max(1))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Short keys, keys from the 32 bytes on at which the hash takes another path, and our own. Those in English are
    /// published by others, so that this is XXH64 and not only what our crate makes of it.
    #[test]
    fn golden_vectors_hold_for_ever() {
        let vectors: [(&[u8], u64); 6] = [
            (b"", 0xef46_db37_51d8_e999),
            (b"a", 0xd24e_c4f1_a98c_6e5b),
            (b"abc", 0x44bc_2cf5_ad77_0999),
            (b"agent_123", 0xce76_bfbc_e4e7_00fd),
            (b"The quick brown fox jumps over the lazy dog", 0x0b24_2d36_1fda_71bc),
            (b"Nobody inspects the spammish repetition", 0xfbce_a83c_8a37_8bf1),
        ];
        for (key, hash) in vectors {
            assert_eq!(key_hash(key), hash, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn a_million_keys_spread_within_five_percent() {
        let mut counts = [0u32; 16];
        for n in 0..1_000_000u32 {
            counts[slot(format!("key-{n}").as_bytes(), 16) as usize] += 1;
        }
        let largest = counts.iter().copied().max().unwrap_or_default();
        assert!(f64::from(largest) <= 62_500.0 * 1.05, "{counts:?}");
    }

    #[test]
    fn no_slots_is_one_slot() {
        assert_eq!(slot(b"x", 0), 0);
    }
}
