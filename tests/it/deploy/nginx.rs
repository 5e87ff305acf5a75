//! nginx's configuration as a tree.

use super::Files;

/// A directive, with those in its braces.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) words: Vec<String>,
    pub(super) inside: Vec<Directive>,
}

impl Directive {
    /// All directives of a name, at any depth.
    pub(super) fn all(&self, name: &str) -> std::vec::IntoIter<&Self> {
        let mut found: Vec<&Self> = self.inside.iter().filter(|it| it.name == name).collect();
        found.extend(self.inside.iter().flat_map(|it| it.all(name)));
        found.into_iter()
    }

    /// The words of a directive right inside.
    pub(super) fn word(&self, name: &str) -> Option<&str> {
        self.inside.iter().find(|it| it.name == name)?.words.first().map(String::as_str)
    }

    /// The block of a name whose words end so.
    pub(super) fn block(&self, name: &str, word: &str) -> &Self {
        let found = self.all(name).find(|it| it.words.last().is_some_and(|it| it == word));
        found.unwrap_or_else(|| panic!("nginx.conf has no {name} {word}"))
    }
}

pub(super) fn read(files: &Files) -> Directive {
    let text = files.text("deploy/nginx/nginx.conf");
    let mut tokens = tokens(text).into_iter();
    Directive { name: String::new(), words: Vec::new(), inside: directives(&mut tokens) }
}

fn directives(tokens: &mut impl Iterator<Item = String>) -> Vec<Directive> {
    let (mut found, mut words) = (Vec::new(), Vec::new());
    while let Some(token) = tokens.next() {
        match token.as_str() {
            "}" => break,
            ";" | "{" if !words.is_empty() => {
                let name = words.remove(0);
                let inside = if token == "{" { directives(tokens) } else { Vec::new() };
                found.push(Directive { name, words: std::mem::take(&mut words), inside });
            }
            _ => words.push(token),
        }
    }
    found
}

fn tokens(text: &str) -> Vec<String> {
    let (mut found, mut word) = (Vec::new(), String::new());
    let mut quote = None;
    for line in text.lines() {
        let end = |found: &mut Vec<String>, word: &mut String| {
            if !word.is_empty() {
                found.push(std::mem::take(word));
            }
        };
        for c in line.chars() {
            match (quote, c) {
                (Some(open), c) if c == open => {
                    found.push(std::mem::take(&mut word));
                    quote = None;
                }
                (Some(_), c) => word.push(c),
                (None, '#') => break,
                (None, '\'' | '"') => quote = Some(c),
                (None, ';' | '{' | '}') => {
                    end(&mut found, &mut word);
                    found.push(c.to_string());
                }
                (None, c) if c.is_whitespace() => end(&mut found, &mut word),
                (None, c) => word.push(c),
            }
        }
        end(&mut found, &mut word);
    }
    found
}
