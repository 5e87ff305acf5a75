//! From text to a syntax tree, for text that may be hostile.

mod measure;
mod parse;
mod scan;

pub(crate) use self::parse::parse;
pub(crate) use self::scan::{Scan, Token, TokenKind, scan, tokens};
