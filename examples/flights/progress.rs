//! How far it is: a bar on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::say;

const PLAIN_LINES: u64 = 10;

/// Progress of one stage.
#[derive(Debug)]
pub(crate) struct Progress {
    stage: &'static str,
    total: u64,
    bar: Option<ProgressBar>,
    told: AtomicU64,
}

impl Progress {
    /// Progress towards `total` of the unit the stage counts in.
    pub(crate) fn new(stage: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style =
                "{msg:>9} {wide_bar} {percent:>3} %  {human_pos} of {human_len}  {per_sec}  {eta}";
            bar.set_style(
                ProgressStyle::with_template(style)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar.set_message(stage);
            bar
        });
        let progress = Self { stage, total, bar, told: AtomicU64::new(0) };
        progress.begin();
        progress
    }

    /// Says that `done` of the total is done.
    pub(crate) fn at(&self, done: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None => self.tell(done),
        }
    }

    /// Ends the stage.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn begin(&self) {
        if self.bar.is_none() {
            say::note(&format!("{}: 0 of {} (0 %)", self.stage, self.total));
        }
    }

    fn tell(&self, done: u64) {
        let tenth = (done * PLAIN_LINES).checked_div(self.total).unwrap_or(PLAIN_LINES);
        if self.told.fetch_max(tenth, Ordering::Relaxed) < tenth {
            let percent = tenth * (100 / PLAIN_LINES);
            say::note(&format!("{}: {done} of {} ({percent} %)", self.stage, self.total));
        }
    }
}
