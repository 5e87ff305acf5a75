//! What it costs to get there.

/// The lines of `to` that are not in `from`, as `diff` counts them.
fn added(from: &[&str], to: &[&str]) -> usize {
    let mut common = vec![vec![0_usize; to.len() + 1]; from.len() + 1];
    for (row, before) in from.iter().enumerate() {
        for (column, after) in to.iter().enumerate() {
            common[row + 1][column + 1] = match before == after {
                true => common[row][column] + 1,
                false => common[row][column + 1].max(common[row + 1][column]),
            };
        }
    }
    to.len() - common[from.len()][to.len()]
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_routed_service_has_as_many_lines_more_as_the_readme_says() {
    let (plain, routed) =
        (lines(include_str!("../../src/plain.rs")), lines(include_str!("../../src/routed.rs")));
    let (longer, new) = (routed.len() - plain.len(), added(&plain, &routed));
    let readme = include_str!("../../README.md");
    let said = format!("**{longer} lines longer** ({new} lines are new or changed)");
    assert!(readme.contains(&said), "README.md has to say: {said}");
    assert!(longer <= 30, "{longer}");
}
