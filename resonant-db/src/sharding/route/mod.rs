//! Routes: from the text of a statement to the shards it may be sent to.

mod analyse;
mod cache;
mod cut;
mod functions;
mod program;
mod rows;

pub(crate) use self::analyse::Goal;
pub(crate) use self::cache::{Compiled, RouteCache};
pub(crate) use self::cut::Cut;
pub use self::program::Access;
pub(crate) use self::program::{
    By, Count, Fold, KeySource, Merge, Part, Place, Program, Proof, Split, Target, place,
};
pub(crate) use self::rows::RowSplit;

use super::refusal::Checked;
use super::schema::Schema;
use super::sql;

/// Compiles a statement, or says why it is refused. Never panics and never exhausts the stack, whatever the text.
pub(crate) fn compile(text: &str, schema: &Schema, goal: Goal) -> Checked<Program> {
    let scan = sql::scan(text)?;
    sql::parse(text, &scan, |statement| analyse::analyse(statement, text, &scan, schema, goal))
}
