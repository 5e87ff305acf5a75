//! Rules between sections, and between those of a kind.

use std::collections::BTreeMap;

use super::config::ScalingConfig;
use super::error::Mistake;
use super::sections::Sections;

impl Sections {
    /// Each has a health check, which must have a name that such a check can have, and no other has.
    pub(super) fn checkable<'a>(
        &mut self,
        section: &str,
        check: impl Fn(&str) -> String,
        names: impl Iterator<Item = &'a String>,
    ) {
        let mut checks = BTreeMap::new();
        for name in names {
            let check = check(name);
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            let expected = if check.len() > 64 || !check.chars().all(plain) {
                "a name must be 1 to 58 letters, digits, '_', '.' or '-': its health check has it, too"
                    .to_owned()
            } else if let Some(other) = checks.insert(check, name) {
                format!("its health check would have the same name as that of {other}")
            } else {
                continue;
            };
            self.wrong(&[section.to_owned(), name.clone()], expected);
        }
    }

    /// With regions the database follows their nodes. One that is none of them would be left out without a word.
    #[cfg(all(feature = "db", feature = "ha"))]
    pub(super) fn regional(
        &mut self,
        database: &resonant_db::DatabaseConfig,
        failover: &resonant_ha::MultiRegion,
    ) {
        use resonant_db::backend::{Access, Target};
        let name = |url: &str| Target::new(url, Access::ReadOnly, None).name;
        let urls = failover.regions.values().filter_map(|region| region.url.as_deref());
        let regions: Vec<_> = urls.map(name).collect();
        let primary = (vec!["primary".to_owned()], &database.primary);
        let replicas = database.replicas.iter().enumerate();
        let replicas = replicas.map(|(at, url)| (vec!["replicas".to_owned(), at.to_string()], url));
        for (path, url) in std::iter::once(primary).chain(replicas) {
            if !regions.contains(&name(url)) {
                let path: Vec<_> = std::iter::once("database".to_owned()).chain(path).collect();
                let expected = "with [regions] this must be the url of one of them, with host, port and database written alike: the database follows the regions, and would leave this node";
                self.wrong(&path, expected.into());
            }
        }
    }

    /// Two scalers of the same workers would undo each other's work in turn.
    pub(super) fn one_scaler_each(&mut self, scaling: &BTreeMap<String, ScalingConfig>) {
        let mut targets = BTreeMap::new();
        for (name, config) in scaling {
            let own = config.deployment.is_none().then_some(&config.queue);
            if let Some(other) = targets.insert((&config.deployment, own), name) {
                let expected = format!(
                    "scaling.{other} scales the same workers: give one scaler all the rules"
                );
                self.wrong(&["scaling".to_owned(), name.clone()], expected);
            }
        }
    }

    /// Notes a mistake of the setting at this path.
    fn wrong(&mut self, path: &[String], expected: String) {
        let given = (0..=path.len()).rev().find_map(|length| self.root.get(&path[..length]));
        let place = given.unwrap_or(&self.root).place.clone();
        self.mistakes.push(Mistake { place, key: path.join("."), expected });
    }
}
