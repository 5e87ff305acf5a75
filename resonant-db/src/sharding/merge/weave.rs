//! Ordered answers, woven into one.

use std::cmp::Ordering;

use super::{Context, Sorted, compare};
use crate::{Result, Row, ValueRef};

/// Which of the rows at the front of each answer comes next, and whether that is possible at all.
#[derive(Debug)]
pub(in crate::sharding) struct Weave {
    pub(super) order: Box<[Sorted]>,
    last: Option<Row>,
}

impl Weave {
    pub(super) fn new(order: Vec<Sorted>) -> Self {
        Self { order: order.into(), last: None }
    }

    /// The answer whose front comes next; `None` when there is no front. It is taken to be used.
    pub(in crate::sharding) fn next(
        &mut self,
        context: &Context<'_>,
        fronts: &[Option<Row>],
    ) -> Result<Option<usize>> {
        let mut first: Option<(usize, &Row)> = None;
        for (at, front) in fronts.iter().enumerate() {
            let Some(row) = front else { continue };
            let earlier = match first {
                Some((_, best)) => self.compared(context, row, best)? == Ordering::Less,
                None => true,
            };
            if earlier {
                first = Some((at, row));
            }
        }
        let Some((at, row)) = first else { return Ok(None) };
        // Of what each shard sends in its order, a later row that should have come earlier shows that its order is another.
        if let Some(last) = &self.last
            && self.compared(context, row, last)? == Ordering::Less
        {
            return Err(context.unordered());
        }
        self.known(context, row)?;
        self.last = Some(row.clone());
        Ok(Some(at))
    }

    fn compared(&self, context: &Context<'_>, a: &Row, b: &Row) -> Result<Ordering> {
        for by in &self.order {
            let order = context.under(by, a.value(by.column)?, b.value(by.column)?)?;
            if order != Ordering::Equal {
                return Ok(order);
            }
        }
        Ok(Ordering::Equal)
    }

    /// Refuses text whose order is unknown also where there is nothing to compare it with, so that an answer does not depend
    /// on how many rows there are.
    fn known(&self, context: &Context<'_>, row: &Row) -> Result<()> {
        for by in &self.order {
            let value = row.value(by.column)?;
            if !matches!(value, ValueRef::Null) && compare(value, value, by.kind).is_none() {
                return Err(context.unordered());
            }
        }
        Ok(())
    }
}
