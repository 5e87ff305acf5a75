//! Being told to end.

use super::error::{Error, ErrorKind, Result};
use super::resonant::Resonant;
use super::shutdown::ShutdownReport;

impl Resonant {
    /// Runs until SIGTERM or SIGINT (elsewhere than on Unix: Ctrl-C), then [shuts down](Self::shutdown) within the
    /// `shutdown_deadline` of `[service]`. A second signal ends the process at once, with the exit code shells give a program that
    /// a signal has ended.
    ///
    /// Signals are listened to from this call on; [`run_until`](Self::run_until) takes those that were listened to before.
    ///
    /// # Errors
    ///
    /// [`Io`](ErrorKind::Io) if signals cannot be listened to; those of [`start`](Self::start), after what runs was shut down.
    pub async fn run_until_signal(&self) -> Result<ShutdownReport> {
        self.run_until(Signals::listen()?).await
    }

    /// As [`run_until_signal`](Self::run_until_signal), with signals that were listened to from the beginning: one that came
    /// while the service opened ends it now.
    ///
    /// # Errors
    ///
    /// Those of [`start`](Self::start), after what runs was shut down.
    pub async fn run_until(&self, mut signals: Signals) -> Result<ShutdownReport> {
        let deadline = self.settings().service.shutdown_deadline;
        if let Err(error) = self.start().await {
            self.shutdown(deadline).await;
            return Err(error);
        }
        signals.next().await;
        tokio::select! {
            report = self.shutdown(deadline) => Ok(report),
            number = signals.next() => std::process::exit(128 + number),
        }
    }
}

/// SIGTERM and SIGINT, from the moment this is made: they no longer end the process by themselves. Make it first thing in `main`
/// where the process may be the first of its container: such a one ignores SIGTERM until somebody listens.
#[derive(Debug)]
pub struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Listens from now on. Call it inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Io`](ErrorKind::Io) if signals cannot be listened to.
    #[cfg(unix)]
    pub fn listen() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| {
            signal(kind).map_err(|error| {
                let message = format!("signals cannot be listened to: {error}");
                Error::new(ErrorKind::Io, "listen", message).with_source(error)
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// The number of the next one.
    #[cfg(unix)]
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => 15,
            _ = self.interrupt.recv() => 2,
        }
    }

    /// Listens. Call it inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// None here.
    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
    pub fn listen() -> Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> i32 {
        match tokio::signal::ctrl_c().await {
            Ok(()) => 2,
            // It cannot be listened to: only the platform can end the process.
            Err(_) => std::future::pending().await,
        }
    }
}
