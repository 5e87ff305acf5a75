//! Finding the bad items of a failed batch by halving it, so that one poisonous item does not fail its neighbours.
//!
//! With k bad items among n this takes at most 2·k·log2(n) + 1 calls of the processor. When everything fails, because a
//! server is down, halving would multiply the load: hence a limit on the extra calls of one batch.

use crate::error::{Error, ErrorKind, Result};
use crate::output::Outcomes;
use crate::process::{Process, Runner};

/// Which items may be run again, and how they are copied for it.
pub(crate) struct Isolate<I> {
    pub(crate) copy: fn(&I) -> I,
    pub(crate) may_rerun: Box<dyn Fn(&I) -> bool + Send + Sync>,
    pub(crate) max_reruns: u64,
}

/// Items with their places in the batch.
type Part<I> = Vec<(usize, I)>;

impl<I> Isolate<I> {
    pub(crate) async fn run<K: Clone, O, P: Process<K, I, O>>(
        &self,
        runner: &Runner<'_, I, P>,
        key: K,
        items: Vec<I>,
        reruns: &mut u64,
    ) -> Result<Outcomes<O>> {
        let len = items.len();
        let rerunnable =
            |(place, item): (usize, &I)| (self.may_rerun)(item).then(|| (place, (self.copy)(item)));
        let copies: Part<I> = items.iter().enumerate().filter_map(rerunnable).collect();
        let error = match runner.attempt(key.clone(), items).await {
            Err(error) if is_worth_it(&error) && !copies.is_empty() => error,
            outcome => return outcome,
        };

        let mut outcomes: Vec<_> = (0..len).map(|_| Some(Err(error.clone()))).collect();
        // Parts still to run, the first on top, each with the error it will have if no run is left.
        let mut parts: Vec<(Part<I>, Error)> = Vec::new();
        if copies.len() == len {
            split(&mut parts, copies, &error)
        } else {
            parts.push((copies, error))
        }
        while let Some((part, last)) = parts.pop() {
            if *reruns >= self.max_reruns {
                part.iter().for_each(|(place, _)| {
                    outcomes[*place] = Some(Err(last.clone().with_retries_exhausted()))
                });
                continue;
            }
            *reruns += 1;
            let items = part.iter().map(|(_, item)| (self.copy)(item)).collect();
            match runner.attempt(key.clone(), items).await {
                Ok(results) => part
                    .iter()
                    .zip(results.into_vec())
                    .for_each(|((place, _), result)| outcomes[*place] = result),
                Err(error) if part.len() > 1 && is_worth_it(&error) => {
                    split(&mut parts, part, &error)
                }
                Err(error) => {
                    part.iter().for_each(|(place, _)| outcomes[*place] = Some(Err(error.clone())))
                }
            }
        }
        Ok(Outcomes::Many(outcomes))
    }
}

/// A processor that hangs or miscounts would do so again.
fn is_worth_it(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::BatchFailed | ErrorKind::Panicked)
}

fn split<I>(parts: &mut Vec<(Part<I>, Error)>, mut part: Part<I>, error: &Error) {
    let second = part.split_off(part.len() / 2);
    parts.push((second, error.clone()));
    parts.push((part, error.clone()));
    parts.retain(|(part, _)| !part.is_empty());
}
