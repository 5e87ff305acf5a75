//! `?verbose` and `?exclude=a&exclude=b,c`.

/// The most names one request can exclude.
const MOST_EXCLUDED: usize = 64;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    pub(crate) verbose: bool,
    pub(crate) excluded: Vec<&'a str>,
}

impl<'a> Query<'a> {
    /// Reads what it knows and passes over the rest. Names need no decoding: they hold no character that is encoded.
    pub(crate) fn read(query: Option<&'a str>) -> Self {
        let mut read = Self::default();
        for pair in query.unwrap_or_default().split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "verbose" => read.verbose = !matches!(value, "0" | "false"),
                "exclude" => {
                    let names = value.split(',').flat_map(|part| part.split("%2C"));
                    read.excluded.extend(names.filter(|name| !name.is_empty()));
                }
                _ => {}
            }
        }
        read.excluded.truncate(MOST_EXCLUDED);
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_parameters_and_passes_over_the_rest() {
        let read = |query| Query::read(Some(query));
        assert_eq!(Query::read(None), Query::default());
        assert!(read("verbose").verbose && read("x=1&verbose=true").verbose);
        assert!(!read("verbose=false").verbose && !read("verbose=0").verbose && !read("v").verbose);
        assert_eq!(
            read("exclude=a&exclude=b,c&exclude=d%2Ce&exclude=").excluded,
            ["a", "b", "c", "d", "e"]
        );
        let many = format!("exclude={}", "a,".repeat(1000));
        assert_eq!(Query::read(Some(&many)).excluded.len(), MOST_EXCLUDED);
    }
}
