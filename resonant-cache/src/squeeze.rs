//! Compression of values, by LZ4. Without the feature `compression` nothing is compressed, and what others compressed does not
//! read: a miss, as everything of an unknown layout.

/// A smaller form of `payload`, unless that gains less than a tenth.
#[cfg(feature = "compression")]
pub(crate) fn compress(payload: &[u8]) -> Option<Vec<u8>> {
    let block = lz4_flex::block::compress(payload);
    (block.len() < payload.len() / 10 * 9).then_some(block)
}

/// What was compressed, if it is exactly `length` bytes long and that is within `limit`. Takes no more room than that,
/// whatever the bytes say.
#[cfg(feature = "compression")]
pub(crate) fn inflate(block: &[u8], length: u64, limit: usize) -> Option<Vec<u8>> {
    let length = usize::try_from(length).ok().filter(|length| *length <= limit)?;
    // A byte of a block stands for at most 255: more cannot be meant.
    if length / 256 > block.len() {
        return None;
    }
    let mut payload = vec![0; length];
    let written = lz4_flex::block::decompress_into(block, &mut payload).ok()?;
    (written == length).then_some(payload)
}

#[cfg(not(feature = "compression"))]
pub(crate) fn compress(_: &[u8]) -> Option<Vec<u8>> {
    None
}

#[cfg(not(feature = "compression"))]
pub(crate) fn inflate(_: &[u8], _: u64, _: usize) -> Option<Vec<u8>> {
    None
}

#[cfg(all(test, feature = "compression"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_comes_back_within_its_limit_only() {
        let payload = b"the same again and again, ".repeat(100);
        let Some(block) = compress(&payload) else { panic!("it is smaller") };
        assert!(block.len() < payload.len() / 10);
        let length = payload.len() as u64;
        assert_eq!(inflate(&block, length, payload.len()), Some(payload.clone()));
        assert_eq!(inflate(&block, length, payload.len() - 1), None, "beyond the limit");
        for wrong in [length - 1, length + 1, u64::MAX, 1 << 40] {
            assert_eq!(inflate(&block, wrong, usize::MAX), None, "{wrong}");
        }
    }

    #[test]
    fn what_would_not_get_smaller_is_left_alone() {
        let noise: Vec<u8> = (0..4096).map(|_| rand::random()).collect();
        assert_eq!(compress(&noise), None);
        assert_eq!(compress(b""), None);
    }
}
