//! Being told to end: Ctrl-C, or a signal to terminate.

use tokio::signal::ctrl_c;
use tokio::sync::watch;

use crate::failure::{Failure, While};
use crate::say;

/// Knows whether the job was told to end. Listens from the moment it is made; before that, a signal ends the process
/// at once, as it does any other.
#[derive(Debug)]
pub(crate) struct Interrupt {
    told: watch::Receiver<bool>,
    /// What is left, for the message.
    afterwards: &'static str,
}

impl Interrupt {
    /// Starts to listen. A second signal ends the process at once.
    pub(crate) fn listen(afterwards: &'static str) -> Result<Self, Failure> {
        let (tell, told) = watch::channel(false);
        #[cfg(unix)]
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .doing("listening for signals")?;
        tokio::spawn(async move {
            loop {
                #[cfg(unix)]
                tokio::select! {
                    _ = ctrl_c() => (),
                    _ = terminate.recv() => (),
                }
                #[cfg(not(unix))]
                let _ = ctrl_c().await;
                if tell.send_replace(true) {
                    std::process::exit(Failure::INTERRUPTED.into());
                }
                say::note("ending; once more ends it at once");
            }
        });
        Ok(Self::told_by(told, afterwards))
    }

    pub(crate) fn told_by(told: watch::Receiver<bool>, afterwards: &'static str) -> Self {
        Self { told, afterwards }
    }

    /// Does `work`, or fails once the job is told to end.
    pub(crate) async fn unless<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut told = self.told.clone();
        tokio::select! {
            biased;
            Ok(_) = told.wait_for(|told| *told) => {
                Err(Failure::Interrupted(format!("interrupted; {}", self.afterwards)))
            }
            done = work => done,
        }
    }
}
