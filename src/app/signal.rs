//! Being told to end.

use super::error::{Error, ErrorKind, Result};
use super::resonant::Resonant;
use super::shutdown::ShutdownReport;

impl Resonant {
    /// Runs until SIGTERM or SIGINT (elsewhere than on Unix: Ctrl-C), then [shuts down](Self::shutdown) within the
    /// `shutdown_deadline` of `[service]`. A second signal ends the process at once, with the exit code shells give a program that
    /// a signal has ended.
    ///
    /// # Errors
    ///
    /// [`Io`](ErrorKind::Io) if signals cannot be listened to; those of [`start`](Self::start).
    pub async fn run_until_signal(&self) -> Result<ShutdownReport> {
        let mut signals = Signals::listen().map_err(|error| {
            let message = format!("signals cannot be listened to: {error}");
            Error::new(ErrorKind::Io, "run_until_signal", message).with_source(error)
        })?;
        self.start().await?;
        signals.next().await;
        tokio::select! {
            report = self.shutdown(self.settings().service.shutdown_deadline) => Ok(report),
            number = signals.next() => std::process::exit(128 + number),
        }
    }
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The number of the next one.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => 15,
            _ = self.interrupt.recv() => 2,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    #[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> i32 {
        match tokio::signal::ctrl_c().await {
            Ok(()) => 2,
            // It cannot be listened to: only the platform can end the process.
            Err(_) => std::future::pending().await,
        }
    }
}
