//! All mistakes of a section at once.
//!
//! serde stops at the first one, and so do the rules of the crates. So what is wrong is noted, taken out, and the rest is
//! read again, until nothing is wrong with what is left.

use serde::de::DeserializeOwned;

use super::error::{Mistake, Place};
use super::nearest::nearest;
use super::read::What;
use super::tree::Node;

/// More mistakes than that of one section are not looked for.
const MOST: usize = 100;

/// Reads the section at `key`, and checks it by `rule`, which is given what was read and answers with the rule it breaks.
/// `None` where there was any mistake.
pub(super) fn section<T: DeserializeOwned>(
    node: &Node,
    key: &str,
    mistakes: &mut Vec<Mistake>,
    rule: impl Fn(T) -> Result<(), String>,
) -> Option<T> {
    let before = mistakes.len();
    let mut reading = Reading { node: node.clone(), whole: node, key, gone: Vec::new(), mistakes };
    while let Some(value) = reading.read::<T>() {
        let Err(broken) = rule(value) else { break };
        if !reading.judged(&broken) {
            break;
        }
    }
    if mistakes.len() > before {
        return None;
    }
    T::deserialize(node).ok()
}

struct Reading<'a> {
    /// What is left.
    node: Node,
    whole: &'a Node,
    key: &'a str,
    /// What was taken out because its value was wrong.
    gone: Vec<Vec<String>>,
    mistakes: &'a mut Vec<Mistake>,
}

impl Reading<'_> {
    fn note(&mut self, path: &[String], expected: String) {
        let given = (0..=path.len()).rev().find_map(|length| self.whole.get(&path[..length]));
        let place = given.map_or(Place::Program, |node| node.place.clone());
        let parts = std::iter::once(self.key).chain(path.iter().map(String::as_str));
        let key = parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
        self.mistakes.push(Mistake { place, key, expected });
    }

    /// What serde makes of it once it has nothing more to object to; `None` if nothing is left to read.
    fn read<T: DeserializeOwned>(&mut self) -> Option<T> {
        for _ in 0..MOST {
            let fault = match T::deserialize(&self.node) {
                Ok(value) => return Some(value),
                Err(fault) => fault,
            };
            let mut path = fault.path();
            match fault.what {
                What::Unknown { key, known } => {
                    let expected = unknown(&key, known);
                    path.push(key);
                    self.note(&path, expected);
                }
                What::Missing(field) => {
                    let mut missing = path.clone();
                    missing.push(field.to_owned());
                    if !self.gone.contains(&missing) {
                        self.note(&missing, "this setting is required".into());
                    }
                    self.gone.push(path.clone());
                }
                What::Wrong(message) | What::Told(message) => {
                    let shapeless = message.starts_with("data did not match any variant");
                    let expected =
                        "expected one of the forms that the documentation of this setting shows";
                    self.note(&path, if shapeless { expected.into() } else { message });
                    self.gone.push(path.clone());
                }
            }
            if path.is_empty() || !self.node.remove(&path) {
                return None;
            }
        }
        None
    }

    /// Notes a broken rule. Whether there may be more of them to find.
    fn judged(&mut self, broken: &str) -> bool {
        let words = || broken.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        // A rule about a setting that was taken out already is about its default, which nobody gave.
        let is_gone =
            |word: &str| self.gone.iter().any(|path| path.last().is_some_and(|last| last == word));
        if words().any(is_gone) {
            return false;
        }
        let about = words().find_map(|word| self.node.find(word));
        // So is one that names no setting, perhaps.
        if about.is_none() && !self.gone.is_empty() {
            return false;
        }
        self.note(about.as_deref().unwrap_or_default(), broken.to_owned());
        let Some(path) = about else { return false };
        let removed = self.node.remove(&path);
        self.gone.push(path);
        removed
    }
}

/// What to say of a name nobody knows.
pub(super) fn unknown(key: &str, known: &[&str]) -> String {
    match nearest(key, known.iter().copied()) {
        Some(meant) => format!("there is no such setting; did you mean {meant}?"),
        None => format!("there is no such setting; there are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde::Deserialize;

    use super::super::tree::parse;
    use super::*;

    #[derive(Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Pool {
        min_size: u32,
        max_size: u32,
        wait: u32,
        name: String,
    }

    impl Default for Pool {
        fn default() -> Self {
            Self { min_size: 1, max_size: 10, wait: 1, name: "pool".into() }
        }
    }

    fn rule(pool: Pool) -> Result<(), String> {
        if pool.wait == 0 {
            return Err("wait must be above 0".into());
        }
        if pool.name.is_empty() {
            return Err("name must not be empty".into());
        }
        let fits = pool.min_size <= pool.max_size;
        if fits { Ok(()) } else { Err("min_size must not be above max_size".into()) }
    }

    fn mistakes(text: &str) -> Vec<String> {
        let mut mistakes = Vec::new();
        let node = parse(text, Path::new("x.toml"), &mut mistakes);
        let read = section(&node, "pool", &mut mistakes, rule);
        assert_eq!(read.is_none(), !mistakes.is_empty());
        mistakes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_mistake_is_named_once_and_none_is_made_up() {
        assert_eq!(
            mistakes("min_sice = 3\nmax_size = \"x\"\nwait = 0\nname = \"\"\nmin_size = 20"),
            [
                "x.toml:2: pool.max_size: expected u32, found text",
                "x.toml:1: pool.min_sice: there is no such setting; did you mean min_size?",
                "x.toml:3: pool.wait: wait must be above 0",
                "x.toml:4: pool.name: name must not be empty",
                // min_size against max_size cannot be judged before max_size is right.
            ]
        );
        assert_eq!(
            mistakes("min_size = 20\nmax_size = 5"),
            ["x.toml:1: pool.min_size: min_size must not be above max_size"]
        );
        assert!(mistakes("min_size = 2").is_empty());
    }
}
