//! Prints what was measured, for people, for scripts and for the document.
//!
//! Two kinds of line are for scripts: `FIGURE <name> <value>`, and `RATIO <name> <value>`, which is ours by the best
//! peer's in speed (or by that of the peer the goal names): above 1 we are faster, whatever the unit.

use std::fmt::Write as _;

use crate::harness::Unit;
use crate::machine;

/// What a contender reached.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// Ours by it in speed.
    pub(crate) ratio: f64,
}

/// What we want to reach: a ratio to the best peer or to a certain one, or a figure where there is no peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) value: f64,
    pub(crate) peer: Option<&'static str>,
}

/// What is measured in one area.
#[derive(Debug)]
pub(crate) struct Report {
    area: &'static str,
    about: &'static str,
    peers: &'static [&'static str],
    load_before: String,
    rows: String,
    /// How the names of the cases that run begin.
    only: String,
    plots: Vec<Plot>,
}

/// A picture beside the tables: its file in `docs/plots`, what it shows, and itself.
#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) file: &'static str,
    pub(crate) about: &'static str,
    pub(crate) svg: String,
}

impl Report {
    pub(crate) fn new(
        area: &'static str,
        about: &'static str,
        peers: &'static [&'static str],
        only: &str,
    ) -> Self {
        println!("\n== {area}");
        let load_before = machine::load();
        Self {
            area,
            about,
            peers,
            load_before,
            rows: String::new(),
            only: only.to_owned(),
            plots: Vec::new(),
        }
    }

    /// Whether the case of that name runs.
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.starts_with(&self.only)
    }

    /// Takes in a comparison: ours first.
    pub(crate) fn add(
        &mut self,
        name: &str,
        about: &str,
        unit: Unit,
        goal: Option<Goal>,
        measured: Vec<Measured>,
    ) {
        println!("\n{about}");
        let Some(ours) = measured.first() else { return };
        let what = match unit {
            Unit::Rate(what) => format!("{what}/s"),
            Unit::Nanoseconds => "ns".to_owned(),
            Unit::Microseconds => "us".to_owned(),
        };
        let mut best: Option<f64> = None;
        for (index, it) in measured.iter().enumerate() {
            let Measured { name: contender, median, least, most, ratio } = it;
            let (median, least, most) = (round(*median), round(*least), round(*most));
            println!("  {contender:<26} {median:>14} {what:<12} ({least} to {most})");
            let ratio = (index > 0).then_some(*ratio);
            let counts = ratio
                .filter(|_| goal.is_none_or(|goal| goal.peer.is_none_or(|it| it == *contender)));
            best = match (best, counts) {
                (Some(best), Some(ratio)) => Some(best.min(ratio)),
                (best, ratio) => best.or(ratio),
            };
            let case = if index == 0 { about } else { "" };
            let ratio = ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let _ = writeln!(
                self.rows,
                "| {case} | {contender} | {median} {what} | {least} to {most} | {ratio} |"
            );
        }
        println!("FIGURE {name} {:.0}", ours.median);
        if let Some(best) = best {
            println!("RATIO {name} {best:.2}");
        }
        if let Some(Goal { value, peer }) = goal {
            // A figure of time is to be less, a ratio is one of speed.
            let less = best.is_none() && !matches!(unit, Unit::Rate(_));
            let reached =
                if less { ours.median <= value } else { best.unwrap_or(ours.median) >= value };
            let verdict = if reached { "reached" } else { "missed" };
            let goal = best.map_or_else(|| round(value), |_| format!("{value:.2}"));
            let whom = match (best, peer) {
                (None, _) => String::new(),
                (Some(_), None) => " against the best".to_owned(),
                (Some(_), Some(peer)) => format!(" against {peer}"),
            };
            println!("  goal {goal}{whom}: {verdict}");
            let best = best.map(|best| format!("**{best:.2}**")).unwrap_or_default();
            let _ = writeln!(self.rows, "| | *goal {goal}{whom}: {verdict}* | | | {best} |");
        }
    }

    /// Takes in a picture.
    pub(crate) fn plot(&mut self, plot: Plot) {
        self.plots.push(plot);
    }

    /// The pictures, to be written beside the document.
    pub(crate) fn plots(&self) -> &[Plot] {
        &self.plots
    }

    /// The area's section of the document.
    pub(crate) fn section(&self) -> String {
        let Self { area, about, peers, load_before, rows, .. } = self;
        let (facts, load) = (machine::facts(), machine::load());
        let peers: Vec<_> = peers.iter().map(|name| machine::version(name)).collect();
        let mut text = format!("## {area}\n\n{about}\n\n`scripts/bench {area}`: {facts}; ");
        let _ = write!(text, "load average {load_before} before and {load} after. ");
        if !peers.is_empty() {
            let _ = write!(text, "Peers: {}.", peers.join(", "));
        }
        let head =
            "| case | contender | median | least to most | ours / theirs |\n|---|---|---|---|---|";
        let text = text.trim_end();
        let mut section = format!("{text}\n\n{head}\n{rows}");
        for Plot { file, about, .. } in &self.plots {
            let _ = write!(section, "\n![{about}](docs/plots/{file})\n\n{about}\n");
        }
        section
    }
}

fn round(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    // Three digits are more than the spread lets one believe.
    let unit = 10_f64.powf(value.log10().floor() - 2.0);
    let digits = format!("{:.0}", (value / unit).round() * unit);
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
