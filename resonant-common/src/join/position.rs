//! A place in a database's history.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place in the history of one database: which database, which timeline, how far.
///
/// Two positions compare only when they belong to the same system and timeline: after a failover the histories part, so
/// an offset of the old timeline says nothing about the new one. As text it is `system:timeline:offset`, short enough
/// for an HTTP header.
///
/// ```
/// use resonant_common::join::Position;
/// let written = Position { system: 7301, timeline: 1, offset: 400 };
/// let replica = Position { offset: 350, ..written };
/// assert_eq!(replica.has_reached(&written), Some(false));
/// assert_eq!(Position { timeline: 2, ..written }.has_reached(&written), None);
/// assert_eq!("7301:1:400".parse(), Ok(written));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Which database: PostgreSQL's system identifier, or a fingerprint of a file.
    pub system: u64,
    /// Which branch of its history.
    pub timeline: u32,
    /// How far along: PostgreSQL's LSN, or a count of commits.
    pub offset: u64,
}

impl Position {
    /// Whether this position includes everything up to `other`; `None` when they do not compare.
    pub fn has_reached(&self, other: &Position) -> Option<bool> {
        self.partial_cmp(other).map(Ordering::is_ge)
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        ((self.system, self.timeline) == (other.system, other.timeline))
            .then(|| self.offset.cmp(&other.offset))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.system, self.timeline, self.offset)
    }
}

/// The text is not `system:timeline:offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsePositionError;

impl fmt::Display for ParsePositionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a position is written system:timeline:offset, three whole numbers")
    }
}

impl std::error::Error for ParsePositionError {}

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        fn number<T: FromStr>(part: Option<&str>) -> Result<T, ParsePositionError> {
            part.and_then(|part| part.parse().ok()).ok_or(ParsePositionError)
        }
        let mut parts = text.splitn(3, ':');
        Ok(Self {
            system: number(parts.next())?,
            timeline: number(parts.next())?,
            offset: number(parts.next())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_round_trips(system: u64, timeline: u32, offset: u64) {
            let position = Position { system, timeline, offset };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Position>();
        }
    }

    #[test]
    fn odd_texts_are_refused() {
        for text in ["", "1:2", "1:2:3:4", "a:b:c", "-1:0:0"] {
            assert_eq!(text.parse::<Position>(), Err(ParsePositionError), "{text}");
        }
    }
}
