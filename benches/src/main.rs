//! `scripts/bench [AREA…]`: figures and ratios, peers in the same run. Without areas it runs all of them.
//!
//! `--write FILE` puts what was measured into the sections of that document; the other sections stay. `--only PREFIX` runs
//! the cases whose names begin so, and is for looking, not for writing.

mod areas;
mod document;
mod harness;
mod machine;
mod plot;
mod recorder;
mod report;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::report::Report;

/// What a bench can fail with; it is printed.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome {
    let mut chosen = Vec::new();
    let mut document: Option<PathBuf> = None;
    let mut only = String::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--write" => document = Some(arguments.next().ok_or("--write needs a file")?.into()),
            "--only" => only = arguments.next().ok_or("--only needs the beginning of a name")?,
            name => chosen.push(areas::find(name)?),
        }
    }
    if document.is_some() && !only.is_empty() {
        return Err("--only and --write do not go together: a section is written as a whole".into());
    }
    let chosen = if chosen.is_empty() { areas::ALL.iter().collect() } else { chosen };

    // With a recorder the crates count what they do, as they do in a service.
    metrics::set_global_recorder(recorder::Atomics::default())
        .map_err(|error| error.to_string())?;
    for area in chosen {
        let mut report = Report::new(area.name, area.about, area.peers, &only);
        (area.run)(&mut report)?;
        // Written after each area, so that an interrupted run keeps what it has.
        if let Some(document) = &document {
            document::put(document, &report.section())?;
            document::draw(document, report.plots())?;
        }
    }
    Ok(())
}
