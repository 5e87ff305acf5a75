//! The table of deadlines says what the code does.

use resonant_db::{Database, PoolConfig};

const TABLE: &str = include_str!("../../../../docs/database.md");

/// The default that the table gives a setting.
fn documented(setting: &str) -> &'static str {
    let row = TABLE.lines().find(|line| line.starts_with(&format!("| `{setting}` |")));
    let row = row.unwrap_or_else(|| panic!("docs/database.md has no row for {setting}"));
    row.split('|').nth(2).expect("a default").trim()
}

#[test]
fn the_table_of_deadlines_is_complete_and_true() {
    let config = Database::builder().pool(PoolConfig::default());
    let config = serde_json::to_value(config.config()).expect("plain data");
    let mut checked = 0;
    for (group, prefix) in
        [(&config, ""), (&config["pool"], "pool."), (&config["routing"], "routing.")]
    {
        for (name, value) in group.as_object().expect("settings") {
            let setting = format!("{prefix}{name}");
            let duration = |text: &str| humantime(text);
            match value {
                serde_json::Value::String(text) if duration(text).is_some() => {
                    assert_eq!(duration(documented(&setting)), duration(text), "{setting}");
                    checked += 1;
                }
                serde_json::Value::Number(number) if name.starts_with("max_") => {
                    assert_eq!(documented(&setting), number.to_string(), "{setting}");
                    checked += 1;
                }
                _ => {}
            }
        }
    }
    assert!(checked >= 17, "only {checked} settings were compared");
}

/// A duration as settings are written; what has no unit is none.
fn humantime(text: &str) -> Option<std::time::Duration> {
    let has_unit = text.ends_with(|last: char| last.is_alphabetic());
    let starts = text.starts_with(|first: char| first.is_ascii_digit());
    (has_unit && starts).then(|| resonant_common::duration::parse(text).ok()).flatten()
}
