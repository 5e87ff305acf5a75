//! Prints what was measured, for people, for scripts and for the document.
//!
//! Two kinds of line are for scripts: `FIGURE <name> <value>`, and `RATIO <name> <value>`, which is ours by the best
//! peer's in speed: above 1 we are faster, whatever the unit.

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
}

/// What is measured in one area.
#[derive(Debug)]
pub(crate) struct Report {
    area: &'static str,
    about: &'static str,
    peers: &'static [&'static str],
    load_before: String,
    rows: String,
}

impl Report {
    pub(crate) fn new(
        area: &'static str,
        about: &'static str,
        peers: &'static [&'static str],
    ) -> Self {
        println!("\n== {area}");
        Self { area, about, peers, load_before: machine::load(), rows: String::new() }
    }

    /// Takes in a comparison: ours first.
    pub(crate) fn add(
        &mut self,
        name: &str,
        about: &str,
        unit: Unit,
        goal: Option<f64>,
        measured: Vec<Measured>,
    ) {
        println!("\n{about}");
        let Some(ours) = measured.first() else { return };
        let what = match unit {
            Unit::Rate(what) => format!("{what}/s"),
            Unit::Nanoseconds => "ns".to_owned(),
        };
        let speed = |it: &Measured| match unit {
            Unit::Rate(_) => it.median,
            Unit::Nanoseconds => 1.0 / it.median,
        };
        let mut best: Option<f64> = None;
        for (index, it) in measured.iter().enumerate() {
            let Measured { name: contender, median, least, most } = it;
            let (median, least, most) = (round(*median), round(*least), round(*most));
            println!("  {contender:<26} {median:>14} {what:<12} ({least} to {most})");
            let ratio = (index > 0).then(|| speed(ours) / speed(it));
            best = match (best, ratio) {
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
        if let Some(goal) = goal {
            let reached = best.unwrap_or(ours.median) >= goal;
            let verdict = if reached { "reached" } else { "missed" };
            let goal = best.map_or_else(|| round(goal), |_| format!("{goal:.2}"));
            println!("  goal {goal}: {verdict}");
            let best = best.map(|best| format!("**{best:.2}**")).unwrap_or_default();
            let _ = writeln!(self.rows, "| | *goal {goal}: {verdict}* | | | {best} |");
        }
    }

    /// The area's section of the document.
    pub(crate) fn section(&self) -> String {
        let Self { area, about, peers, load_before, rows } = self;
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
        format!("{text}\n\n{head}\n{rows}")
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
