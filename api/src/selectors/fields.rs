//! `metadata.name=web-0,status.phase!=Running`, with `\` before `,`, `=` and itself in values.

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    path: String,
    is_equal: bool,
    value: String,
}

/// Conditions on fields, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

impl FieldSelector {
    /// Reads a selector's text; the error is for the client.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for part in split_unescaped(text) {
            if !part.is_empty() {
                terms.push(term(part, text)?);
            }
        }
        Ok(Self { terms })
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The fields it looks at.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|term| term.path.as_str())
    }

    /// The value that a field must have.
    pub fn required(&self, path: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.is_equal && term.path == path).map(|t| t.value.as_str())
    }

    /// Whether fields, given by a look-up, are selected.
    pub fn matches(&self, field: impl Fn(&str) -> String) -> bool {
        self.terms.iter().all(|term| (field(&term.path) == term.value) == term.is_equal)
    }
}

fn term(part: &str, whole: &str) -> Result<Term, String> {
    let invalid = || format!("invalid selector: '{whole}'; can't understand '{part}'");
    let at = part.find('=').ok_or_else(invalid)?;
    let (left, right) = part.split_at(at);
    let (path, is_equal) = match left.strip_suffix('!') {
        Some(path) => (path, false),
        None => (left, true),
    };
    let right = &right[1..];
    let right = if is_equal { right.strip_prefix('=').unwrap_or(right) } else { right };
    Ok(Term { path: path.trim().to_owned(), is_equal, value: unescape(right).ok_or_else(invalid)? })
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut is_escaped) = (0, false);
    for (at, c) in text.char_indices() {
        if c == ',' && !is_escaped {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    parts.push(&text[start..]);
    parts
}

/// The value without its backslashes; `None` where something stands bare or escaped that must not.
fn unescape(text: &str) -> Option<String> {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => value.push(chars.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            ',' | '=' => return None,
            other => value.push(other),
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_compare_and_escapes_are_undone() {
        let selector = FieldSelector::parse(r"a=x\,y,b!=z,c==w").expect("valid");
        let field = |path: &str| match path {
            "a" => "x,y".to_owned(),
            "b" => "other".to_owned(),
            _ => "w".to_owned(),
        };
        assert!(selector.matches(field));
        assert_eq!(selector.required("a"), Some("x,y"));
        assert_eq!(selector.required("b"), None);
        assert!(!FieldSelector::parse("b=z").expect("valid").matches(field));
    }

    #[test]
    fn what_is_no_comparison_is_refused() {
        for text in ["a", r"a=\x", "a=b=c"] {
            assert!(FieldSelector::parse(text).is_err(), "{text}");
        }
    }
}
