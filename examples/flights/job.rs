//! The job from beginning to end.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::board::Board;
use crate::failure::{Failure, While};
use crate::home::Home;
use crate::input::{self, Survey};
use crate::interrupt::Interrupt;
use crate::journal::Journal;
use crate::options::Options;
use crate::pace::Pace;
use crate::pipeline::Pipeline;
use crate::progress::Progress;
use crate::proof::{Audit, Summary};
use crate::rejects::Rejects;
use crate::say;
use crate::store::Store;
use crate::watch::Watch;

/// How long parts may take to close.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// Checks the input, stores it, proves what is stored, and shows the board.
pub(crate) async fn run(options: &Options) -> Result<(), Failure> {
    let started = Instant::now();
    let input = options.input();
    if let Some(path) = &options.summary {
        can_be_written(path)?;
    }
    let survey = check(&input, options.skip_bad_rows)?;

    let home = Home::open(options).await?;
    let interrupt = Interrupt::listen(home.afterwards())?;
    let engines = home.engines().await?;
    let journal = Journal::open(&engines.notes, &survey).await?;
    let board = Board::new(&engines);
    let watch = Watch::start(&engines, &board)?;
    let pace = Pace::up_to(home.first_limit(survey.flights));

    let started = home.opened(started);
    let storing = Progress::new("storing", survey.flights);
    let crew = home.crew(&engines, options.workers).await?;
    let chaos = home.chaos(crew.kill(), &pace, survey.flights);
    let pipeline = Pipeline::new(&engines, crew, &journal).await?;
    let work = pipeline.run(&input, &survey, &journal, &interrupt, &pace, |done| storing.at(done));
    let stored = tokio::select! {
        stored = async { tokio::try_join!(work, chaos) } => stored,
        never = board.looked_at(home.has_visitors(), &survey.totals) => match never {},
    };
    storing.finish();
    let (stored, ()) = stored?;
    let seconds = started.elapsed().as_secs_f64();

    let summary = interrupt.unless(prove(&engines.store, &survey, seconds)).await?;
    board.show(&summary.by_airport).await?;
    say::result(&format!(
        "\nstored {stored} flights in {seconds:.2} s: {:.0} flights/s\n\
         durability: {}\nhealth: {}\n",
        stored as f64 / seconds,
        home.durability(),
        watch.report().await
    ))?;

    if let Some(visits) = board.visits() {
        say::result(&visits)?;
    }
    watch.stop().await;
    engines.close().await;

    if let Some(path) = &options.summary {
        write_summary(path, &summary)?;
    }
    summary.prove(&survey)?;
    say::result(&format!(
        "proof: {} flights of {} airports stored once, in order per airport, sums equal to the input\n",
        summary.flights, summary.airports
    ))
}

/// Reads the whole input before anything is stored, so that bad input leaves nothing behind.
fn check(input: &Path, skip_bad_rows: bool) -> Result<Survey, Failure> {
    let bytes = std::fs::metadata(input).map(|metadata| metadata.len()).unwrap_or_default();
    let mut rejects = Rejects::of(input);
    let checking = Progress::new("checking", bytes);
    let reject = |number: u64, reason: &str, line: &[u8]| {
        if skip_bad_rows {
            return rejects.write(number, reason, line);
        }
        let place = format!("{}, line {number}: {reason}", input.display());
        Err(Failure::Input(format!(
            "{place} (--skip-bad-rows stores the good rows and keeps the bad ones apart)"
        )))
    };
    let survey = input::survey(input, reject, |read| checking.at(read));
    checking.finish();
    let survey = survey?;
    if let Some(path) = rejects.finish()? {
        let (count, path) = (survey.rejected, path.display());
        say::note(&format!("{count} bad lines are in {path} with their reasons"));
    }
    Ok(survey)
}

async fn prove(store: &Store, survey: &Survey, seconds: f64) -> Result<Summary, Failure> {
    let mut audit = Audit::new(survey.flights);
    let proving = Progress::new("proving", survey.flights);
    let looked = store.audit(&mut audit, |done| proving.at(done)).await;
    proving.finish();
    looked?;
    Ok(audit.finish(seconds, survey.rejected, survey.flights))
}

/// Learnt before the work, not after it.
fn can_be_written(path: &Path) -> Result<(), Failure> {
    let was_there = path.exists();
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|_| if was_there { Ok(()) } else { std::fs::remove_file(path) })
        .map_err(|error| unwritable(path, &error))
}

fn write_summary(path: &Path, summary: &Summary) -> Result<(), Failure> {
    let json = serde_json::to_vec_pretty(summary).doing("writing the summary")?;
    std::fs::write(path, json).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Input(format!("cannot write the summary to {}: {error}", path.display()))
}
