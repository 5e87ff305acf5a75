//! The texts of `deploy/` and of the pages about it, and how each kind of them is read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::telemetry::repository;

/// By their paths from the root of the repository.
#[derive(Debug, Clone)]
pub(super) struct Files(BTreeMap<String, String>);

impl Files {
    pub(super) fn load() -> Self {
        let root = repository();
        let mut files = BTreeMap::new();
        gather(&root, &root.join("deploy"), &mut files);
        for page in ["docs/capacity.md", "docs/deploy.md"] {
            files.insert(page.to_owned(), fs::read_to_string(root.join(page)).unwrap());
        }
        Self(files)
    }

    pub(super) fn text(&self, path: &str) -> &str {
        self.0.get(path).unwrap_or_else(|| panic!("there is no {path}"))
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The same files, but for one text in one of them.
    pub(super) fn with(&self, path: &str, from: &str, to: &str) -> Self {
        let mut files = self.clone();
        let text = files.0.get_mut(path).unwrap_or_else(|| panic!("there is no {path}"));
        assert!(text.contains(from), "{path} does not say {from}");
        *text = text.replacen(from, to, 1);
        files
    }

    pub(super) fn yaml(&self, path: &str) -> Vec<Value> {
        yaml(self.text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Sections of settings.
    pub(super) fn ini(&self, path: &str) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let mut section = String::new();
        for line in self.text(path).lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else if let Some((name, value)) = line.split_once('=')
                && !line.starts_with(';')
            {
                let entries = sections.entry(section.clone()).or_default();
                let old = entries.insert(name.trim().to_owned(), value.trim().to_owned());
                assert!(old.is_none(), "{path} says {name} twice");
            }
        }
        sections
    }

    pub(super) fn toml(&self, path: &str) -> toml::Table {
        toml::from_str(self.text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

/// The documents of a text.
pub(super) fn yaml(text: &str) -> Result<Vec<Value>, serde_saphyr::Error> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

fn gather(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        // These have tests of their own.
        if ["deploy/prometheus", "deploy/grafana"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            gather(root, &path, files);
        } else {
            files.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

/// Seconds, of `30`, `"30s"`, `"100ms"` or `"5m"`.
pub(super) fn seconds(text: &str) -> f64 {
    let text = text.trim().trim_end_matches(';');
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().unwrap_or_else(|_| panic!("no duration: {text}"));
    match &text[digits..] {
        "" | "s" => number,
        "ms" => number / 1000.0,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        unit => panic!("no unit of time: {unit}"),
    }
}

/// A quantity of Kubernetes: cores, or bytes.
pub(super) fn quantity(text: &str) -> f64 {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().unwrap_or_else(|_| panic!("no quantity: {text}"));
    match &text[digits..] {
        "" => number,
        "m" => number / 1000.0,
        "Mi" => number * f64::from(1 << 20),
        "Gi" => number * f64::from(1 << 30),
        unit => panic!("no unit: {unit}"),
    }
}

/// A value of a tree, by the way to it: `spec.template.spec.containers.0.name`.
pub(super) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, key| match key.parse::<usize>() {
        Ok(index) if value.is_array() => &value[index],
        _ => &value[key],
    })
}

pub(super) fn words<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

/// A number, or text that is one.
pub(super) fn number(value: &Value, path: &str) -> f64 {
    match at(value, path) {
        Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        Value::String(text) => text.trim_end_matches('%').parse().unwrap_or(f64::NAN),
        _ => f64::NAN,
    }
}

pub(super) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_array().map(Vec::as_slice).unwrap_or_default()
}
