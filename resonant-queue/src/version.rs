//! Versions of what a message looks like: stamped by the publisher, brought up to date by the reader.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use resonant_common::error::BoxError;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::message::{Headers, Message};

/// The header that tells the version. Without it a message is of version 1.
pub(crate) const VERSION: &str = "schema-version";

type Step = Arc<dyn Fn(Value) -> Result<Value, BoxError> + Send + Sync>;

/// The version messages are published in, and how earlier ones become it.
#[derive(Clone)]
pub(crate) struct Versions {
    current: u32,
    steps: BTreeMap<u32, Step>,
}

impl Default for Versions {
    fn default() -> Self {
        Self { current: 1, steps: BTreeMap::new() }
    }
}

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<_> = self.steps.keys().collect();
        f.debug_struct("Versions").field("current", &self.current).field("steps", &steps).finish()
    }
}

/// Why a message cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It is of a version this program cannot know; a later one may.
    Later(String),
    /// It is not what its version says.
    Broken(String),
}

impl Versions {
    pub(crate) fn set(&mut self, current: u32) {
        self.current = current;
    }

    pub(crate) fn step(&mut self, from: u32, step: Step) {
        self.steps.insert(from, step);
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let refused = |text: String| Err(Error::new(ErrorKind::Config, "build", text));
        if self.current == 0 {
            return refused("versions are numbered from 1".into());
        }
        match self.steps.keys().find(|from| !(1..self.current).contains(from)) {
            Some(from) => refused(format!(
                "upcast({from}) leads to version {}, but messages are of version {}: raise version or remove it",
                u64::from(*from) + 1,
                self.current
            )),
            None => Ok(()),
        }
    }

    /// Marks what is published. What the caller says itself stays.
    pub(crate) fn stamp(&self, headers: &mut Headers) {
        if self.stamps() {
            headers.entry(VERSION.to_owned()).or_insert_with(|| self.current.to_string());
        }
    }

    /// Whether messages are marked: those of version 1 need not be.
    pub(crate) fn stamps(&self) -> bool {
        self.current > 1
    }

    /// The message in its current form, or why it cannot be read.
    pub(crate) fn decode<T: DeserializeOwned>(&self, message: &Message) -> Result<T, Unreadable> {
        let told = message.headers.as_ref().and_then(|headers| headers.get(VERSION));
        let Some(told) = told.filter(|told| told.parse() != Ok(self.current)) else {
            if told.is_none() && self.current > 1 {
                return self.upcast(1, &message.body);
            }
            return serde_json::from_slice(&message.body).map_err(|error| broken(&error));
        };
        match told.parse() {
            Ok(version) if (1..self.current).contains(&version) => {
                self.upcast(version, &message.body)
            }
            _ => Err(Unreadable::Later(format!(
                "the message is of version {:.20?}, and this program knows versions up to {}",
                told, self.current
            ))),
        }
    }

    fn upcast<T: DeserializeOwned>(&self, version: u32, body: &[u8]) -> Result<T, Unreadable> {
        let mut steps = self.steps.range(version..).peekable();
        if steps.peek().is_none() {
            return serde_json::from_slice(body).map_err(|error| broken(&error));
        }
        let mut value = serde_json::from_slice(body).map_err(|error| broken(&error))?;
        for (from, step) in steps {
            value = step(value).map_err(|error| {
                let to = from + 1;
                Unreadable::Broken(format!(
                    "a message of version {version} cannot become one of {to}: {error}"
                ))
            })?;
        }
        serde_json::from_value(value).map_err(|error| broken(&error))
    }
}

/// serde_json names the place, never the value of a text field it could not read into a number; still only the class and
/// the place are kept.
fn broken(error: &serde_json::Error) -> Unreadable {
    Unreadable::Broken(format!(
        "the body is not the expected message: {:?} error at line {} column {}",
        error.classify(),
        error.line(),
        error.column()
    ))
}
