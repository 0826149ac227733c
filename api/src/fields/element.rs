//! [`Element`]: one step of the way to a field, in the two forms that clients see.
//!
//! | in fieldsV1 | in messages | |
//! |---|---|---|
//! | `f:spec` | `.spec` | a field or a key of a map |
//! | `k:{"name":"web"}` | `[name="web"]` | the element of a list that has these keys |
//! | `v:"a"` | `[="a"]` | the element of a set |
//! | `i:0` | `[0]` | the element of a list that has no better identity |

use std::fmt;

use serde_json::{Map, Value};

/// One step. Keys and values are JSON texts, whose keys are ordered: equal elements are equal texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    /// A field or a key of a map.
    Field(String),
    /// The element of a list with these keys.
    Keys(String),
    /// The element of a set.
    Value(String),
    /// The element at an index.
    Index(u64),
}

impl Element {
    pub(super) fn field(name: &str) -> Self {
        Self::Field(name.to_owned())
    }

    pub(super) fn keys(keys: Map<String, Value>) -> Self {
        Self::Keys(Value::Object(keys).to_string())
    }

    pub(super) fn value(value: &Value) -> Self {
        Self::Value(value.to_string())
    }

    /// Reads the form of fieldsV1.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Self::field(rest)),
            "k" => match serde_json::from_str(rest).ok()? {
                Value::Object(keys) => Some(Self::keys(keys)),
                _ => None,
            },
            "v" => Some(Self::value(&serde_json::from_str(rest).ok()?)),
            "i" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }

    /// The form of fieldsV1.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Keys(keys) => format!("k:{keys}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Keys(keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> =
                    keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}
