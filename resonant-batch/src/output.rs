//! What a processor may return.

use resonant_common::error::BoxError;

use crate::error::{Error, Result, batch_failed, item_failed, wrong_length};

pub(crate) use self::private::Outcomes;

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
    fn into_outcomes(self, items: usize) -> Result<Outcomes<Self::Item>>;
}

/// One result for each item, in order, where the batch may also fail as a whole: see [`BatchOutput`].
#[derive(Debug)]
pub struct PerItem<O, E>(pub Vec<Result<O, E>>);

mod private {
    use crate::error::Result;

    pub trait Sealed {}

    /// The outcomes of a batch by position; `None` where nobody waits. One alone, as batches mostly are while there is
    /// little to do, takes no memory of its own.
    #[derive(Debug)]
    pub enum Outcomes<O> {
        One(Option<Result<O>>),
        Many(Vec<Option<Result<O>>>),
    }
}

impl<O> Outcomes<O> {
    #[inline]
    pub(crate) fn as_slice(&self) -> &[Option<Result<O>>] {
        match self {
            Self::One(outcome) => std::slice::from_ref(outcome),
            Self::Many(outcomes) => outcomes,
        }
    }

    #[inline]
    pub(crate) fn as_mut_slice(&mut self) -> &mut [Option<Result<O>>] {
        match self {
            Self::One(outcome) => std::slice::from_mut(outcome),
            Self::Many(outcomes) => outcomes,
        }
    }

    pub(crate) fn into_vec(self) -> Vec<Option<Result<O>>> {
        match self {
            Self::One(outcome) => vec![outcome],
            Self::Many(outcomes) => outcomes,
        }
    }

    /// Of as many as `outputs` has.
    #[inline]
    fn of<T>(mut outputs: Vec<T>, outcome: impl Fn(T) -> Result<O>) -> Self {
        if outputs.len() == 1
            && let Some(output) = outputs.pop()
        {
            return Self::One(Some(outcome(output)));
        }
        Self::Many(outputs.into_iter().map(|output| Some(outcome(output))).collect())
    }
}

#[inline]
fn check(items: usize, returned: usize) -> Result<()> {
    if items == returned { Ok(()) } else { Err(wrong_length(items, returned)) }
}

fn each<O, E: Into<BoxError>>(results: Vec<Result<O, E>>) -> Outcomes<O> {
    let error = |source: E| -> Error { item_failed("submit", source) };
    Outcomes::of(results, |result| result.map_err(error))
}

impl<O, E> private::Sealed for Vec<Result<O, E>> {}
impl<O: Send + 'static, E: Into<BoxError> + Send> BatchOutput for Vec<Result<O, E>> {
    type Item = O;
    fn into_outcomes(self, items: usize) -> Result<Outcomes<O>> {
        check(items, self.len())?;
        Ok(each(self))
    }
}

impl<O, E> private::Sealed for Result<Vec<O>, E> {}
impl<O: Send + 'static, E: Into<BoxError> + Send> BatchOutput for Result<Vec<O>, E> {
    type Item = O;
    fn into_outcomes(self, items: usize) -> Result<Outcomes<O>> {
        let outputs = self.map_err(batch_failed)?;
        check(items, outputs.len())?;
        Ok(Outcomes::of(outputs, Ok))
    }
}

impl<E> private::Sealed for Result<(), E> {}
impl<E: Into<BoxError> + Send> BatchOutput for Result<(), E> {
    type Item = ();
    fn into_outcomes(self, items: usize) -> Result<Outcomes<()>> {
        self.map_err(batch_failed)?;
        Ok(Outcomes::of(vec![(); items], Ok))
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
    fn into_outcomes(self, items: usize) -> Result<Outcomes<O>> {
        let PerItem(results) = self.map_err(batch_failed)?;
        check(items, results.len())?;
        Ok(each(results))
    }
}
