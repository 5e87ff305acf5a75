//! Which body form a client wants: a small reading of `Accept`.

/// A form of body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    HealthJson,
    Json,
    Text,
}

impl Form {
    /// In the order we prefer them.
    const ALL: [Form; 3] = [Form::HealthJson, Form::Json, Form::Text];

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Form::HealthJson => "application/health+json",
            Form::Json => "application/json",
            Form::Text => "text/plain; charset=utf-8",
        }
    }

    fn media(self) -> (&'static str, &'static str) {
        match self {
            Form::HealthJson => ("application", "health+json"),
            Form::Json => ("application", "json"),
            Form::Text => ("text", "plain"),
        }
    }

    /// The form that fits best: the highest quality, then the one named most exactly, then our preference.
    ///
    /// A probe must not fail because of its `Accept`, so where nothing fits it gets health+json.
    pub(crate) fn choose(accept: &[&str]) -> Self {
        let ranked = Form::ALL.into_iter().filter_map(|form| {
            let ranges = accept.iter().flat_map(|line| line.split(','));
            let best = ranges.filter_map(|range| form.fit(range)).max_by_key(|fit| fit.exactness);
            best.filter(|fit| fit.quality > 0).map(|fit| (form, fit))
        });
        // Of equals the first stays: ours come in falling preference.
        let mut chosen: Option<(Form, Fit)> = None;
        for (form, fit) in ranked {
            let better = chosen.is_none_or(|(_, best)| {
                (fit.quality, fit.exactness) > (best.quality, best.exactness)
            });
            if better {
                chosen = Some((form, fit));
            }
        }
        chosen.map_or(Form::HealthJson, |(form, _)| form)
    }

    fn fit(self, range: &str) -> Option<Fit> {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next()?.to_ascii_lowercase();
        let (kind, sub) = media.split_once('/')?;
        let exactness = match (kind, sub) {
            ("*", "*") => 0,
            (kind, "*") if kind == self.media().0 => 1,
            (kind, sub) if (kind, sub) == self.media() => 2,
            _ => return None,
        };
        let quality = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(Some(1.0), |quality| quality.trim().parse::<f32>().ok())
            .filter(|quality| (0.0..=1.0).contains(quality))?;
        // RFC 9110 allows three decimals.
        Some(Fit { quality: (quality * 1000.0).round() as u16, exactness })
    }
}

#[derive(Debug, Clone, Copy)]
struct Fit {
    quality: u16,
    exactness: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_of_accept_headers() {
        use Form::{HealthJson, Json, Text};
        for (accept, form) in [
            ("", HealthJson),
            ("*/*", HealthJson),
            ("application/*", HealthJson),
            ("application/health+json", HealthJson),
            ("application/json", Json),
            ("APPLICATION/JSON", Json),
            ("text/plain", Text),
            ("text/*", Text),
            ("application/json, */*", Json),
            ("text/plain;q=0.5, application/json;q=0.4", Text),
            ("text/plain;q=0.5, */*;q=0.8", HealthJson),
            ("application/health+json;q=0, application/json", Json),
            ("application/health+json;q=0, */*", Json),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", HealthJson),
            ("image/png", HealthJson),
            ("application/json;q=0", HealthJson),
            ("application/json;q=7", HealthJson),
            (";;,,/", HealthJson),
            ("text/plain; charset=utf-8; q=1.0", Text),
        ] {
            assert_eq!(Form::choose(&[accept]), form, "{accept:?}");
        }
        assert_eq!(Form::choose(&[]), HealthJson);
        assert_eq!(Form::choose(&["text/plain;q=0.1", "application/json"]), Json);
    }
}
