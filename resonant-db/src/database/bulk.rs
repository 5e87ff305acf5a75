//! Rows of parameters by the million, a chunk at a time.

use crate::backend::ParamRows;
use crate::{Param, Result};

const MAX_ROWS: usize = 4096;
const MAX_BYTES: usize = 1 << 20;

/// Makes one row of parameters for [`execute_many`](crate::Write::execute_many): `row![7, name]`.
///
/// Unlike [`params!`](crate::params) it takes what it is given as it is, so that a closure can answer the row: numbers by
/// value, text and bytes borrowed: `users.iter().map(|user| row![user.id, &user.name])`.
///
/// ```
/// use resonant_db::{Param, row};
/// let users = [(1_i64, String::from("Ada"))];
/// let rows: Vec<_> = users.iter().map(|(id, name)| row![id, name]).collect();
/// assert_eq!(rows[0], [Param::Int(1), Param::Text("Ada")]);
/// ```
#[macro_export]
macro_rules! row {
    ($($value:expr),* $(,)?) => {
        [$($crate::Param::from($value)),*]
    };
}

/// Cuts rows into chunks that are worth a trip and still small.
pub(super) struct Chunks<I: Iterator> {
    rows: std::iter::Peekable<I>,
}

impl<'p, I: Iterator<Item: AsRef<[Param<'p>]>>> Chunks<I> {
    pub(super) fn new(rows: I) -> Self {
        Self { rows: rows.peekable() }
    }

    /// The next chunk, or `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<ParamRows>> {
        let Some(first) = self.rows.peek() else { return Ok(None) };
        let mut chunk = ParamRows::new(first.as_ref().len());
        while chunk.len() < MAX_ROWS && chunk.size() < MAX_BYTES {
            let Some(row) = self.rows.next() else { break };
            chunk.push(row.as_ref())?;
        }
        Ok(Some(chunk))
    }

    /// Whether there is no chunk left.
    pub(super) fn is_done(&mut self) -> bool {
        self.rows.peek().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_bounded_in_rows_and_bytes_and_lose_none() -> Result<()> {
        let mut chunks = Chunks::new((0..10_000_i64).map(|n| [Param::Int(n)]));
        let mut sizes = Vec::new();
        let mut next = 0;
        while let Some(chunk) = chunks.next()? {
            for row in 0..chunk.len() {
                assert_eq!(chunk.param(row, 0), Param::Int(next));
                next += 1;
            }
            sizes.push(chunk.len());
        }
        assert_eq!(sizes, [4096, 4096, 1808]);

        let big = "x".repeat(300_000);
        let mut chunks = Chunks::new((0..10).map(|_| [Param::Text(&big)]));
        assert_eq!(chunks.next()?.map(|chunk| chunk.len()), Some(4));
        assert!(!chunks.is_done());
        let mut none = Chunks::new(std::iter::empty::<[Param<'_>; 1]>());
        assert!(none.next()?.is_none() && none.is_done());
        Ok(())
    }
}
