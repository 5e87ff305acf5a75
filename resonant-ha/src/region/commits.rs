//! Whom a primary's commits wait for.

/// Which standbys a primary's commits wait for.
///
/// A commit that waits for one of ten proves little about three of them: only standbys that are regions of the manager
/// count, and every other name that may answer in their place counts against them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct CommitsWaitFor {
    /// How many of them each commit waits for; 0 where commits wait for nobody.
    pub count: u32,
    /// The names any of which may answer; `*` is anybody.
    pub names: Vec<String>,
}

impl CommitsWaitFor {
    /// Commits wait for nobody.
    pub fn nobody() -> Self {
        Self::default()
    }

    /// For how many of `ours` each commit waits at least, whoever else may have answered. Names are equal in any case,
    /// as they are to PostgreSQL.
    ///
    /// ```
    /// use resonant_ha::CommitsWaitFor;
    ///
    /// let wait = |count, names: &[&str]| CommitsWaitFor {
    ///     count,
    ///     names: names.iter().map(|name| name.to_string()).collect(),
    /// };
    /// let ours = ["east", "west", "north"];
    /// assert_eq!(wait(1, &["east", "West", "north"]).among(ours), 1);
    /// assert_eq!(wait(1, &["*"]).among(ours), 0);                      // anybody may have answered
    /// assert_eq!(wait(1, &["west", "reports"]).among(ours), 0);        // so may "reports"
    /// assert_eq!(wait(2, &["west", "north", "reports"]).among(ours), 1);
    /// ```
    pub fn among<'a>(&self, ours: impl IntoIterator<Item = &'a str>) -> u32 {
        if self.names.iter().any(|name| name == "*") {
            return 0;
        }
        let ours: Vec<&str> = ours.into_iter().collect();
        let known = |name: &str| ours.iter().any(|own| own.eq_ignore_ascii_case(name));
        let (mut own, mut others): (Vec<&str>, Vec<&str>) =
            self.names.iter().map(String::as_str).partition(|name| known(name));
        for names in [&mut own, &mut others] {
            names.sort_unstable_by_key(|name| name.to_ascii_lowercase());
            names.dedup_by(|one, other| one.eq_ignore_ascii_case(other));
        }
        let others = u32::try_from(others.len()).unwrap_or(u32::MAX);
        let own = u32::try_from(own.len()).unwrap_or(u32::MAX);
        self.count.saturating_sub(others).min(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_counts_twice_and_strangers_count_against() {
        let wait = |count, names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            CommitsWaitFor { count, names }.among(["a", "b", "c"])
        };
        assert_eq!(wait(0, &[]), 0);
        assert_eq!(wait(1, &["a"]), 1);
        assert_eq!(wait(2, &["a", "A"]), 1);
        assert_eq!(wait(2, &["a", "b", "x", "X"]), 1);
        assert_eq!(wait(2, &["a", "b", "x", "y"]), 0);
        assert_eq!(wait(3, &["a", "b", "c", "*"]), 0);
        assert_eq!(CommitsWaitFor::nobody().among(["a"]), 0);
    }
}
