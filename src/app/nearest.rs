//! What somebody may have meant.

/// The name that is nearest to `given`, if one is near enough to be meant.
pub(super) fn nearest<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let given = plain(given);
    let far = (given.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (distance(&given, &plain(name)), name))
        .min()
        .filter(|(distance, _)| *distance <= far)
        .map(|(_, name)| name)
}

/// Without what people write in different ways.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// How many letters have to be put in, taken out, changed or swapped with the next.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut above: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    let mut before = None;
    for (line, letter) in from.chars().enumerate() {
        let mut next = vec![line + 1];
        for (column, other) in to.iter().enumerate() {
            let change = row[column] + usize::from(letter != *other);
            let mut best = change.min(row[column + 1] + 1).min(next[column] + 1);
            let swapped = column > 0 && before == Some(*other) && to[column - 1] == letter;
            if swapped && let Some(swap) = above.get(column - 1) {
                best = best.min(swap + 1);
            }
            next.push(best);
        }
        above = std::mem::replace(&mut row, next);
        before = Some(letter);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let known = ["max_size", "min_size", "max_idle_time", "primary"];
        for (given, meant) in [
            ("max_siz", Some("max_size")),
            ("maxsize", Some("max_size")),
            ("max-size", Some("max_size")),
            ("pirmary", Some("primary")),
            ("primry", Some("primary")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(given, known), meant, "{given}");
        }
        assert_eq!(distance("abcd", "acbd"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(nearest("anything", []), None);
    }
}
