//! The JSON paths of printer columns, selectable fields and scales: `.spec.replicas`,
//! `.status.conditions[?(@.type=="Ready")].status`, `.spec.ports[0].port`.

use serde_json::Value;

/// A path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// A key.
    Key(String),
    /// An element, from the end where negative.
    Index(i64),
    /// All elements, or all values of a map.
    All,
    /// The elements whose field equals a text.
    Where(Vec<String>, String),
}

impl JsonPath {
    /// Reads a path; `None` where it is not understood.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('{').trim_end_matches('}');
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let (key, left) = key(after)?;
                steps.push(if key == "*" { Step::All } else { Step::Key(key) });
                rest = left;
            } else if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after)?;
                steps.push(bracket(&after[..end])?);
                rest = &after[end + 1..];
            } else {
                return None;
            }
        }
        Some(Self(steps))
    }

    /// Every value it leads to.
    pub(super) fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        self.0.iter().fold(vec![value], |found, step| {
            found.into_iter().flat_map(|value| step.follow(value)).collect()
        })
    }

    /// Its keys, where it has nothing else.
    pub(super) fn keys(&self) -> Option<Vec<&str>> {
        self.0.iter().map(Step::key).collect()
    }

    /// The JSON pointer that leads to the same, where it has only keys.
    pub(super) fn pointer(&self) -> Option<String> {
        let escaped = |key: &str| format!("/{}", key.replace('~', "~0").replace('/', "~1"));
        Some(self.keys()?.into_iter().map(escaped).collect())
    }
}

impl Step {
    fn key(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(key),
            _ => None,
        }
    }

    fn follow<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let list = || value.as_array().map_or(&[][..], Vec::as_slice);
        match self {
            Self::Key(key) => value.get(key).into_iter().collect(),
            Self::All => match value {
                Value::Object(map) => map.values().collect(),
                _ => list().iter().collect(),
            },
            Self::Index(index) => {
                let from_end = usize::try_from(-index).ok().filter(|_| *index < 0);
                let at = match from_end {
                    Some(back) => list().len().checked_sub(back),
                    None => usize::try_from(*index).ok(),
                };
                at.and_then(|at| list().get(at)).into_iter().collect()
            }
            Self::Where(path, wanted) => {
                let matches = |item: &&Value| {
                    let found = path.iter().try_fold(*item, |value, key| value.get(key));
                    found.is_some_and(|found| match found {
                        Value::String(text) => text == wanted,
                        other => {
                            let shown = other.to_string();
                            shown == *wanted
                        }
                    })
                };
                list().iter().filter(matches).collect()
            }
        }
    }
}

/// A key and what follows it; `\.` is a dot within.
fn key(text: &str) -> Option<(String, &str)> {
    let mut key = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => key.push(letters.next()?.1),
            '.' | '[' => return (!key.is_empty()).then_some((key, &text[at..])),
            letter => key.push(letter),
        }
    }
    (!key.is_empty()).then_some((key, ""))
}

/// The end of what stands in brackets, quotes minded.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (None, ']') => return Some(at),
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), letter) if open == letter => quote = None,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(key) = quoted(text) {
        return Some(Step::Key(key.to_owned()));
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        let (left, right) = filter.split_once("==")?;
        let path = left.trim().strip_prefix("@.")?;
        let path = path.split('.').map(ToOwned::to_owned).collect();
        let right = right.trim();
        return Some(Step::Where(path, quoted(right).unwrap_or(right).to_owned()));
    }
    text.parse().ok().map(Step::Index)
}

fn quoted(text: &str) -> Option<&str> {
    ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}
