//! The reference service: agents of organisations, tasks of agents, and sessions that watch their tasks.
//!
//! One binary in three roles, as the scaling guide deploys them: `api` takes requests, `worker` does the tasks, `session` holds
//! WebSockets. Without a role it is all three, and without a file it runs with nothing installed:
//!
//! ```sh
//! cargo run -p resonant-example-service                   # then see README.md beside this file
//! ```

mod api;
mod model;
mod session;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use axum::Router;
use clap::{Parser, ValueEnum};
use resonant_sdk::app::{self, Resonant, Settings, Signals};

/// Agents, their tasks, and sessions that watch them.
#[derive(Debug, Parser)]
#[command(name = "service", version)]
struct Arguments {
    /// What this process does.
    #[arg(value_enum, default_value_t = Role::All)]
    role: Role,
    /// The file with the settings. Without it everything is embedded, in files of this folder.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address to listen on, over what the file says.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Say whether the settings are in order, and end.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// All three in one process.
    All,
    /// REST for agents and tasks, and /ws.
    Api,
    /// Does the tasks.
    Worker,
    /// Holds WebSockets: /ws.
    Session,
}

impl Role {
    fn serves(self, role: Self) -> bool {
        self == role || self == Self::All
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", error.message());
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> app::Result<ExitCode> {
    // First of all: the first process of a container ignores SIGTERM until somebody listens.
    let signals = Signals::listen()?;
    let mut reader = match arguments.config {
        Some(file) => Settings::file(file),
        None => Settings::text("resonant.toml", include_str!("../resonant.toml")),
    };
    if let Some(listen) = arguments.listen {
        reader = reader.set("http.listen", listen);
    }
    let mut settings = reader.read()?;
    if arguments.check {
        let sections: Vec<_> = settings.sections().collect();
        println!("{} is in order: {}", settings.path().display(), sections.join(", "));
        return Ok(ExitCode::SUCCESS);
    }

    // What a role does not use it does not open, and does not depend on.
    if !arguments.role.serves(Role::Api) {
        (settings.sharded_database, settings.cache) = (None, None);
    }
    if arguments.role == Role::Session {
        settings.queues.clear();
    }
    let app = Resonant::open(settings).await?;
    if let Err(error) = start(&app, arguments.role).await {
        // What runs already ends in order, too.
        app.shutdown(app.settings().service.shutdown_deadline).await;
        return Err(error);
    }
    let report = app.run_until(signals).await?;
    println!("{report}");
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn start(app: &Resonant, role: Role) -> app::Result<()> {
    let mut routes = Router::new();
    if role.serves(Role::Api) {
        routes = routes.merge(api::routes(app).await?);
    }
    if role.serves(Role::Worker) {
        worker::start(app).await?;
    }
    if role.serves(Role::Api) || role.serves(Role::Session) {
        routes = routes.merge(session::routes(app)?);
    }
    if let Some(address) = app.serve(routes).await? {
        println!("listening on http://{address}");
    }
    Ok(())
}
