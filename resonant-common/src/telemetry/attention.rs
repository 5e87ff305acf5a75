//! For tests that listen to `tracing` on one thread while others run on threads that nobody listens on.

use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, set_global_default};
use tracing::{Event, Metadata, Subscriber};

/// Wants nothing, and wants to be asked each time.
#[derive(Debug)]
struct Undecided;

impl Subscriber for Undecided {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        false
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Keeps every place that traces open to subscribers that come later, for the rest of the process. Call it before
/// `tracing::subscriber::with_default` in a test.
///
/// `tracing` remembers of each such place whether anybody wants it. A place that another thread reaches for the first time
/// just while a subscriber is installed may be remembered as unwanted for good, and the subscriber misses it. With this, no
/// place is ever unwanted for good. It does nothing where a global subscriber is installed already.
pub fn keep_attention() {
    let _ = set_global_default(Undecided);
}
