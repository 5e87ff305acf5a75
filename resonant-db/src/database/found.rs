//! What a node turned out to be, looked at once and said once.

use std::sync::OnceLock;

use crate::Result;
use crate::backend::{Capabilities, Connection, Survey};
use crate::pool::Verdict;

/// What is known of a node since the first connection to it.
pub(super) struct Found {
    pub(super) survey: OnceLock<Survey>,
    /// How many processes like this one there are.
    pub(super) instances: u32,
}

impl Found {
    /// Looks at the node, unless that was done, and says what it lacks.
    pub(super) async fn look(
        &self,
        connection: &mut dyn Connection,
        declared: Capabilities,
        node: &str,
        most: (u32, u32),
    ) -> Result<()> {
        if self.survey.get().is_some() {
            return Ok(());
        }
        let survey = match connection.survey(declared).await {
            Ok(survey) => survey,
            Err(error) if connection.verdict() == Verdict::Reuse => {
                tracing::debug!(node, %error, "what the node can do is not known");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if self.survey.set(survey).is_ok() {
            let lacks = lacks(declared, survey.capabilities);
            if !lacks.is_empty() {
                tracing::warn!(node, lacks = lacks.join("; "), "the node cannot do everything");
            }
            if let Some(excess) = excess(most, self.instances, survey.connections) {
                tracing::warn!(node, "{excess}");
            }
        }
        Ok(())
    }
}

/// What of `declared` was not `found`, and what becomes of it. Pure.
fn lacks(declared: Capabilities, found: Capabilities) -> Vec<&'static str> {
    let facts = [
        (
            declared.positions && !found.positions,
            "it does not say how far it is: a session reads from the primary once it has written, and max_staleness is not \
             kept by replicas",
        ),
        (
            declared.reports_role && !found.reports_role,
            "it does not say that it was promoted or demoted: that shows only when it is asked in the background",
        ),
        (declared.notifications && !found.notifications, "LISTEN does not work"),
    ];
    facts.into_iter().filter(|(holds, _)| *holds).map(|(_, words)| words).collect()
}

/// What to say when all pools together may want more connections than the node allows. Pure.
fn excess((most, beside): (u32, u32), instances: u32, allowed: Option<u32>) -> Option<String> {
    let allowed = allowed?;
    let each = u64::from(most).saturating_add(u64::from(beside));
    let wanted = each.saturating_mul(u64::from(instances));
    (wanted > u64::from(allowed)).then(|| {
        let fits = (allowed / instances.max(1)).saturating_sub(beside);
        format!(
            "a pool of up to {most} connections and {beside} beside it, times {instances} instances, is {wanted}; the node \
             allows {allowed}. Lower max_size to {fits} or less, raise max_connections, or put a pooler in between"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_said_with_the_sum() {
        assert_eq!(excess((23, 1), 4, Some(97)), None);
        let said = excess((24, 1), 4, Some(97)).expect("100 of 97");
        assert!(said.contains("is 100;") && said.contains("allows 97"), "{said}");
        assert!(said.contains("max_size to 23"), "{said}");
        assert_eq!(excess((1000, 1), 1, None), None);
        assert!(excess((u32::MAX, 5), u32::MAX, Some(1)).is_some());
    }

    #[test]
    fn what_is_missing_is_named_and_nothing_else() {
        let none = Capabilities::none();
        let all = Capabilities { positions: true, reports_role: true, notifications: true, ..none };
        assert!(lacks(all, all).is_empty() && lacks(none, none).is_empty());
        let pooled = Capabilities { notifications: false, ..all };
        assert_eq!(lacks(all, pooled), ["LISTEN does not work"]);
        assert_eq!(lacks(all, none).len(), 3);
    }
}
