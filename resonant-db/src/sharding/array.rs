//! Arrays of keys written as text: `org_id = ANY($1)` with `{org_1,org_2}`.
//!
//! The server reads such a text by the type it declared. The router reads it too, so it takes the strict part of PostgreSQL's
//! notation only, which leaves no room for two readings: one dimension, no blanks around elements, quotes around everything
//! that is not plain. What a server writes is of that kind.

use std::borrow::Cow;

/// The text is no array in the notation the router takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoArray;

/// An element: how it is written, and its text unless it is NULL.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    pub(crate) raw: &'a str,
    pub(crate) text: Option<Cow<'a, str>>,
}

/// Hands on the elements of an array one by one.
pub(crate) fn elements(text: &str) -> Result<Elements<'_>, NoArray> {
    let inside = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let rest = inside.ok_or(NoArray)?;
    Ok(Elements { rest: (!rest.is_empty()).then_some(rest) })
}

/// What is left of an array.
#[derive(Debug)]
pub(crate) struct Elements<'a> {
    rest: Option<&'a str>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>, NoArray>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        let (end, text) = match if rest.starts_with('"') { quoted(rest) } else { bare(rest) } {
            Ok(found) => found,
            Err(fault) => return Some(Err(fault)),
        };
        let (raw, behind) = rest.split_at(end);
        self.rest = match behind.strip_prefix(',') {
            Some(more) => Some(more),
            None if behind.is_empty() => None,
            None => return Some(Err(NoArray)),
        };
        Some(Ok(Element { raw, text }))
    }
}

type Found<'a> = Result<(usize, Option<Cow<'a, str>>), NoArray>;

/// An element without quotes: where it ends, and its text.
fn bare(rest: &str) -> Found<'_> {
    let end = rest.find(',').unwrap_or(rest.len());
    let text = rest.get(..end).unwrap_or_default();
    let plain = |byte: u8| byte > b' ' && !matches!(byte, b'"' | b'\\' | b'{' | b'}' | 0x7f);
    if text.is_empty() || !text.bytes().all(plain) {
        return Err(NoArray);
    }
    Ok((end, (!text.eq_ignore_ascii_case("null")).then_some(Cow::Borrowed(text))))
}

/// An element in quotes.
fn quoted(rest: &str) -> Found<'_> {
    let body = rest.get(1..).unwrap_or_default();
    let mut owned: Option<String> = None;
    let mut characters = body.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                let text = match owned {
                    Some(text) => Cow::Owned(text),
                    None => Cow::Borrowed(body.get(..at).unwrap_or_default()),
                };
                return Ok((at + 2, Some(text)));
            }
            '\\' => {
                let (_, escaped) = characters.next().ok_or(NoArray)?;
                let text = owned.get_or_insert_with(|| body.get(..at).unwrap_or_default().into());
                text.push(escaped);
            }
            character => {
                if let Some(text) = &mut owned {
                    text.push(character);
                }
            }
        }
    }
    Err(NoArray)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a server writes it.
    fn written(texts: &[Option<String>]) -> String {
        let quoted =
            |text: &String| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let elements = texts.iter().map(|text| text.as_ref().map_or("NULL".to_owned(), quoted));
        format!("{{{}}}", elements.collect::<Vec<_>>().join(","))
    }

    fn read(text: &str) -> Result<Vec<Option<String>>, NoArray> {
        elements(text)?.map(|element| Ok(element?.text.map(Cow::into_owned))).collect()
    }

    #[test]
    fn what_servers_write_is_read_and_nothing_doubtful_is() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("{}"), Ok(vec![]));
        assert_eq!(read("{1,-2}"), Ok(vec![some("1"), some("-2")]));
        assert_eq!(read("{a,NULL,null,\"NULL\"}"), Ok(vec![some("a"), None, None, some("NULL")]));
        assert_eq!(
            read(r#"{"a b","",",","\"\\{}"}"#),
            Ok(vec![some("a b"), some(""), some(","), some("\"\\{}")])
        );
        for doubtful in [
            "",
            "{",
            "}",
            "a",
            "{a",
            "{a,}",
            "{,a}",
            "{a,,b}",
            "{ a}",
            "{a }",
            "{a b}",
            "{{a}}",
            "[1:1]={a}",
            "{\"a}",
            "{\"a\"b}",
            "{a\"b\"}",
            "{a\\b}",
            "{a}b",
            "{a\tb}",
            "{\"a\" }",
            "{\"a\\",
            "{a\u{b}}",
        ] {
            assert_eq!(read(doubtful), Err(NoArray), "{doubtful}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(texts: Vec<Option<String>>) {
            prop_assert_eq!(read(&written(&texts)), Ok(texts));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = read(&text);
            let _ = read(&format!("{{{text}}}"));
        }
    }
}
