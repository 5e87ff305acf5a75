//! What a processor may return.

use resonant_common::error::BoxError;

use crate::error::{Error, Result, batch_failed, item_failed, wrong_length};

/// The outcomes of a batch by position; `None` where nobody waits.
pub(crate) type Outcomes<O> = Vec<Option<Result<O>>>;

/// What a processor returns for a batch of items. Four types implement it:
///
/// | type | meaning |
/// |---|---|
/// | `Vec<Result<O, E>>` | one result for each item, in order |
/// | `Result<Vec<O>, E>` | one output for each item, in order, or all items fail |
/// | `Result<(), E>` | all items succeed with nothing to return, or all fail |
/// | `Result<PerItem<O, E>, F>` | one result for each item, or all items fail |
///
/// Errors are anything that converts into a boxed error. They need not be `Clone`: when all items fail they share one.
#[diagnostic::on_unimplemented(
    message = "a batch processor cannot return `{Self}`",
    note = "return `Vec<Result<O, E>>`, `Result<Vec<O>, E>`, `Result<(), E>` or `Result<PerItem<O, E>, F>`"
)]
pub trait BatchOutput: private::Sealed + Send {
    /// What the submitter of an item gets.
    type Item: Send + 'static;

    #[doc(hidden)]
    fn into_outcomes(
        self,
        items: usize,
        _: private::Token,
    ) -> Result<Vec<Option<Result<Self::Item>>>>;
}

/// One result for each item, in order, where the batch may also fail as a whole: see [`BatchOutput`].
#[derive(Debug)]
pub struct PerItem<O, E>(pub Vec<Result<O, E>>);

mod private {
    pub trait Sealed {}
    #[derive(Debug)]
    pub struct Token;
}

pub(crate) fn outcomes<B: BatchOutput>(output: B, items: usize) -> Result<Outcomes<B::Item>> {
    output.into_outcomes(items, private::Token)
}

fn check(items: usize, returned: usize) -> Result<()> {
    if items == returned { Ok(()) } else { Err(wrong_length(items, returned)) }
}

fn each<O, E: Into<BoxError>>(results: Vec<Result<O, E>>) -> Outcomes<O> {
    let error = |source: E| -> Error { item_failed("submit", source) };
    results.into_iter().map(|result| Some(result.map_err(error))).collect()
}

impl<O, E> private::Sealed for Vec<Result<O, E>> {}
impl<O: Send + 'static, E: Into<BoxError> + Send> BatchOutput for Vec<Result<O, E>> {
    type Item = O;
    fn into_outcomes(self, items: usize, _: private::Token) -> Result<Outcomes<O>> {
        check(items, self.len())?;
        Ok(each(self))
    }
}

impl<O, E> private::Sealed for Result<Vec<O>, E> {}
impl<O: Send + 'static, E: Into<BoxError> + Send> BatchOutput for Result<Vec<O>, E> {
    type Item = O;
    fn into_outcomes(self, items: usize, _: private::Token) -> Result<Outcomes<O>> {
        let outputs = self.map_err(batch_failed)?;
        check(items, outputs.len())?;
        Ok(outputs.into_iter().map(|output| Some(Ok(output))).collect())
    }
}

impl<E> private::Sealed for Result<(), E> {}
impl<E: Into<BoxError> + Send> BatchOutput for Result<(), E> {
    type Item = ();
    fn into_outcomes(self, items: usize, _: private::Token) -> Result<Outcomes<()>> {
        self.map_err(batch_failed)?;
        Ok((0..items).map(|_| Some(Ok(()))).collect())
    }
}

impl<O, E, F> private::Sealed for Result<PerItem<O, E>, F> {}
impl<O, E, F> BatchOutput for Result<PerItem<O, E>, F>
where
    O: Send + 'static,
    E: Into<BoxError> + Send,
    F: Into<BoxError> + Send,
{
    type Item = O;
    fn into_outcomes(self, items: usize, _: private::Token) -> Result<Outcomes<O>> {
        let PerItem(results) = self.map_err(batch_failed)?;
        check(items, results.len())?;
        Ok(each(results))
    }
}
