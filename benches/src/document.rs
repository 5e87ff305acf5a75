//! The document: a head and a section for each area. A run replaces the sections of its areas.

use std::fs;
use std::path::Path;

use crate::Outcome;
use crate::areas::ALL;
use crate::report::Plot;

const HEAD: &str = "# Benchmarks

Printed by `scripts/bench`; no number here is written by hand. `scripts/bench AREA…` measures some areas again and replaces their
sections.

Peers run beside us in the same process and take turns with us, so that a slow minute of the machine hits everybody; each turn begins
with another contender. A median is over 25 turns where nothing else is said, the least and the most of them stand beside it, and the
first turn is not counted. Read the ratios, not the absolutes: a ratio is the median of the ratios within each turn, ours by theirs in
speed, so above 1 we are faster, for times as well. Where the load average is high the machine was shared, and the spread shows it.

Only operations that gave the right result count. All contenders share one Tokio runtime with a worker for each core. Our crates count
into a `metrics` recorder all the time, as they do in a service; peers that can record metrics do not.
";

/// Puts a section, which starts with its heading, in its place.
pub(crate) fn put(path: &Path, section: &str) -> Outcome {
    let before = fs::read_to_string(path).unwrap_or_default();
    fs::write(path, merge(&before, section))?;
    Ok(())
}

/// Writes pictures where the section looks for them.
pub(crate) fn draw(path: &Path, plots: &[Plot]) -> Outcome {
    let folder = path.parent().unwrap_or(Path::new("")).join("docs/plots");
    for Plot { file, svg, .. } in plots {
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(file), svg)?;
    }
    Ok(())
}

fn merge(before: &str, section: &str) -> String {
    let mut document = HEAD.to_owned();
    for area in &ALL {
        let heading = format!("## {}\n", area.name);
        let found =
            if section.starts_with(&heading) { Some(section) } else { find(before, &heading) };
        if let Some(found) = found {
            document.push('\n');
            document.push_str(found.trim_end());
            document.push('\n');
        }
    }
    document
}

/// The section with this heading, up to the next.
fn find<'a>(document: &'a str, heading: &str) -> Option<&'a str> {
    let start = document.find(&format!("\n{heading}"))? + 1;
    let text = &document[start..];
    let end = text[heading.len()..].find("\n## ").map_or(text.len(), |end| heading.len() + end);
    Some(&text[..end])
}
