//! The job from beginning to end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::board::Board;
use crate::failure::{Failure, While};
use crate::input::{self, Survey};
use crate::journal::Journal;
use crate::options::Options;
use crate::pipeline::Pipeline;
use crate::progress::Progress;
use crate::proof::{Audit, Summary};
use crate::rejects::Rejects;
use crate::store::Store;
use crate::watch::Watch;

/// How long parts may take to close.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// Checks the input, stores it, proves what is stored, and shows the board.
pub(crate) async fn run(options: &Options) -> Result<(), Failure> {
    let started = Instant::now();
    let input = options.input();
    let survey = check(&input, options.skip_bad_rows)?;

    let (folder, _removed_at_the_end) = match &options.data_dir {
        Some(folder) => {
            std::fs::create_dir_all(folder).doing("making the data folder")?;
            (folder.clone(), None)
        }
        None => {
            let folder = tempfile::Builder::new()
                .prefix("flights-")
                .tempdir()
                .doing("making a temporary folder")?;
            (folder.path().to_owned(), Some(folder))
        }
    };
    let journal = Journal::open(&folder, &survey).await?;
    let store = Arc::new(Store::open(&folder).await?);
    let pipeline = Pipeline::open(&folder, &store, options.workers).await?;
    let board = Board::new(&store);
    let watch = Watch::start(&store, pipeline.queue(), &board)?;

    let storing = Progress::new("storing", survey.flights);
    let stored = pipeline.run(&input, &survey, &journal, |done| storing.at(done)).await;
    storing.finish();
    let stored = stored?;
    let seconds = started.elapsed().as_secs_f64();

    let summary = prove(&store, &survey, seconds).await?;
    board.show(&summary.by_airport).await?;
    println!(
        "\nstored {stored} flights in {seconds:.2} s: {:.0} flights/s",
        stored as f64 / seconds
    );
    println!(
        "durability: queue and shards are SQLite in WAL mode with synchronous=FULL; nothing is acknowledged before it is on disk"
    );
    println!("health: {}", watch.report().await);

    watch.stop().await;
    pipeline.close().await;
    journal.close().await;
    store.close().await;

    if let Some(path) = &options.summary {
        write_summary(path, &summary)?;
    }
    summary.prove(&survey)?;
    println!(
        "proof: {} flights of {} airports stored once, in order per airport, sums equal to the input",
        summary.flights, summary.airports
    );
    Ok(())
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
        eprintln!("{} bad lines are in {} with their reasons", survey.rejected, path.display());
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

fn write_summary(path: &Path, summary: &Summary) -> Result<(), Failure> {
    let json = serde_json::to_vec_pretty(summary).doing("writing the summary")?;
    std::fs::write(path, json).map_err(|error| {
        Failure::Input(format!("cannot write the summary to {}: {error}", path.display()))
    })
}
