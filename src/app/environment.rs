//! One rule by which the environment goes over the file.
//!
//! `RESONANT__DATABASE__POOL__MAX_SIZE=20` sets `max_size` in `[database.pool]`: two underscores stand where a table is
//! entered, capitals for small letters, and `_` also for the `-`, `.` or `:` of a name the file has. The value is read as its
//! setting wants it; a list is given with commas or, like a table, as TOML (`["a", "b"]`), nothing as `none`. A variable that is
//! empty is a mistake: where a secret is missing it must not turn a broker into a queue in memory.

use super::error::{Mistake, Place};
use super::tree::{self, Node, Value};

/// What the variables begin with.
const PREFIX: &str = "RESONANT__";

/// The variable the scaling guide gives its containers.
const DATABASE_URL: &str = "DATABASE_URL";
const PRIMARY: &str = "RESONANT__DATABASE__PRIMARY";

/// Puts the variables over the file's settings.
pub(super) fn apply(
    vars: impl IntoIterator<Item = (String, String)>,
    root: &mut Node,
    mistakes: &mut Vec<Mistake>,
) {
    // In the order of their names, so that which mistake is named first is no matter of chance.
    let mut vars: Vec<_> = vars.into_iter().collect();
    vars.sort_unstable();
    let url = vars.iter().find(|(name, _)| name == DATABASE_URL);
    let primary = ["database".to_owned(), "primary".to_owned()];
    // Many a machine has one: it is meant for this service only where the service has a database, and says no other.
    if let Some((name, value)) = url
        && root.get(&primary[..1]).is_some()
        && !vars.iter().any(|(name, _)| name == PRIMARY)
    {
        put(root, &primary, value, Place::Variable(name.clone()), mistakes);
    }
    for (name, value) in vars {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let place = Place::Variable(name.clone());
        let segments: Vec<&str> = rest.split("__").collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            let expected = format!("expected {PREFIX}SECTION__SETTING");
            mistakes.push(Mistake { place, key: String::new(), expected });
            continue;
        }
        let path = resolve(root, &segments);
        put(root, &path, &value, place, mistakes);
    }
}

fn put(root: &mut Node, path: &[String], value: &str, place: Place, mistakes: &mut Vec<Mistake>) {
    if value.trim().is_empty() {
        let expected =
            "this variable is empty: unset it, or write [] for an empty list, none for nothing"
                .into();
        mistakes.push(Mistake { place, key: path.join("."), expected });
    } else {
        root.put(path, given(value, place));
    }
}

/// A setting the program gives in words.
pub(super) fn given(text: &str, place: Place) -> Node {
    let written = if text.starts_with(['[', '{']) { tree::value(text, &place) } else { None };
    written.unwrap_or_else(|| Node { value: Value::Loose(text.to_owned()), place })
}

/// The path a variable means: names the file has are taken as it writes them.
fn resolve(root: &Node, segments: &[&str]) -> Vec<String> {
    let mut path: Vec<String> = Vec::with_capacity(segments.len());
    for segment in segments {
        let wanted = segment.to_ascii_lowercase();
        let known = root.get(&path).and_then(Node::entries).and_then(|entries| {
            let exact = entries.contains_key(&wanted).then_some(&wanted);
            exact.or_else(|| entries.keys().find(|key| spoken(key) == wanted)).cloned()
        });
        path.push(known.unwrap_or(wanted));
    }
    path
}

/// A name as a variable can say it.
fn spoken(name: &str) -> String {
    name.chars()
        .map(|c| if matches!(c, '-' | '.' | ':') { '_' } else { c })
        .collect::<String>()
        .to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn over(file: &str, vars: &[(&str, &str)]) -> (Node, Vec<Mistake>) {
        let mut mistakes = Vec::new();
        let mut root = tree::parse(file, Path::new("x.toml"), &mut mistakes);
        apply(vars.iter().map(|(n, v)| ((*n).into(), (*v).into())), &mut root, &mut mistakes);
        (root, mistakes)
    }

    fn text(root: &Node, path: &[&str]) -> Option<String> {
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        match &root.get(&path)?.value {
            Value::Text(text) | Value::Loose(text) => Some(text.clone()),
            other => Some(other.kind().to_owned()),
        }
    }

    #[test]
    fn a_variable_goes_over_the_file_and_names_are_found() {
        let (root, mistakes) = over(
            "[queues.session-tasks]\npoison = \"park\"\n[database]\nprimary = \"a\"",
            &[
                ("RESONANT__QUEUES__SESSION_TASKS__POISON", "dead_letter"),
                ("RESONANT__DATABASE__POOL__MAX_SIZE", "20"),
                ("RESONANT__DATABASE__REPLICAS", "[\"b\", \"c\"]"),
                ("PATH", "/bin"),
            ],
        );
        assert!(mistakes.is_empty());
        let poison = text(&root, &["queues", "session-tasks", "poison"]);
        assert_eq!(poison.as_deref(), Some("dead_letter"));
        assert_eq!(text(&root, &["database", "pool", "max_size"]).as_deref(), Some("20"));
        assert_eq!(text(&root, &["database", "replicas"]).as_deref(), Some("a list"));
        assert_eq!(text(&root, &["database", "primary"]).as_deref(), Some("a"));
    }

    #[test]
    fn the_guides_variable_serves_a_database_the_file_names_and_no_other() {
        let url = ("DATABASE_URL", "postgresql://primary:5432/resonant");
        let primary = |file, vars: &[_]| text(&over(file, vars).0, &["database", "primary"]);
        assert_eq!(primary("[database]", &[url]).as_deref(), Some(url.1));
        assert_eq!(primary("", &[url]), None);
        let own = ("RESONANT__DATABASE__PRIMARY", "sqlite:own.db");
        assert_eq!(primary("[database]", &[own, url]).as_deref(), Some(own.1));
    }

    #[test]
    fn an_empty_variable_is_a_mistake_and_changes_nothing() {
        let vars = [
            ("RESONANT__BROKER__URLS", ""),
            ("DATABASE_URL", " "),
            ("RESONANT__CACHE__NODES", "[]"),
        ];
        let file = "[broker]\nurls = \"amqp://h\"\n[database]\nprimary = \"a\"";
        let (root, mistakes) = over(file, &vars);
        let said: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("DATABASE_URL: database.primary: this variable is empty"));
        assert!(said[1].starts_with("RESONANT__BROKER__URLS: broker.urls: this variable is empty"));
        assert_eq!(text(&root, &["broker", "urls"]).as_deref(), Some("amqp://h"));
        assert_eq!(text(&root, &["database", "primary"]).as_deref(), Some("a"));
        assert_eq!(text(&root, &["cache", "nodes"]).as_deref(), Some("a list"));
        assert!(over("", &[("DATABASE_URL", "")]).1.is_empty());
    }

    #[test]
    fn a_variable_that_leads_nowhere_is_a_mistake() {
        let (_, mistakes) = over("", &[("RESONANT____X", "1"), ("RESONANT__", "1")]);
        assert_eq!(mistakes.len(), 2);
    }
}
