//! JSON and YAML text to a tree, noting keys given twice, which neither library reports.
//!
//! Depth is bounded by both readers (128 levels), repetition by YAML aliases by the YAML reader.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Format;

mod lines;

/// A value, and the keys it gave more than once.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) value: Value,
    pub(super) repeats: Repeats,
}

impl Tree {
    /// A value that was made otherwise than from a text.
    pub(super) fn of(value: Value) -> Self {
        Self { value, repeats: Repeats::Paths(Vec::new()) }
    }
}

/// Keys given more than once, as each reader of Kubernetes' tells of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Repeats {
    /// The paths of a JSON text.
    Paths(Vec<String>),
    /// What is said of each line of a YAML text.
    Lines(Vec<String>),
}

impl Repeats {
    /// For a warning each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        match self {
            Self::Paths(paths) => {
                paths.iter().map(|path| format!("duplicate field \"{path}\"")).collect()
            }
            Self::Lines(lines) => lines.clone(),
        }
    }

    /// For one refusal: all lines are one error.
    pub(crate) fn errors(&self) -> Vec<String> {
        match self {
            Self::Lines(lines) if !lines.is_empty() => {
                vec![format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "))]
            }
            other => other.warnings(),
        }
    }
}

/// Most duplicates that are reported.
const DUPLICATES_MAX: usize = 100;

/// Reads a text; the error says why it is none.
pub(super) fn read(body: &[u8], format: Format) -> Result<Tree, String> {
    let duplicates = RefCell::new(Vec::new());
    let seed = Node { duplicates: &duplicates, path: None };
    let value = if format == Format::Yaml {
        read_yaml(body, seed)?
    } else {
        let mut reader = serde_json::Deserializer::from_slice(body);
        seed.deserialize(&mut reader)
            .and_then(|value| reader.end().map(|()| value))
            .map_err(|error| go_json(&error))?
    };
    let paths = duplicates.into_inner();
    let repeats = match format {
        Format::Yaml if !paths.is_empty() => Repeats::Lines(lines::repeated(body)),
        _ => Repeats::Paths(paths),
    };
    Ok(Tree { value, repeats })
}

/// The first document, as Kubernetes takes it.
fn read_yaml(body: &[u8], seed: Node<'_>) -> Result<Value, String> {
    let Some(document) = serde_yaml_ng::Deserializer::from_slice(body).next() else {
        return Ok(Value::Null);
    };
    seed.deserialize(document).map_err(|e| format!("yaml: {e}"))
}

fn go_json(error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    error.to_string()
}

/// A step of a path: its parent and itself. Paths are written only for duplicates.
#[derive(Clone, Copy)]
struct Step<'a> {
    parent: Option<&'a Step<'a>>,
    at: At<'a>,
}

#[derive(Clone, Copy)]
enum At<'a> {
    Key(&'a str),
    Index(usize),
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.at {
            At::Key(key) if self.parent.is_some() => write!(f, ".{key}"),
            At::Key(key) => f.write_str(key),
            At::Index(index) => write!(f, "[{index}]"),
        }
    }
}

#[derive(Clone, Copy)]
struct Node<'a> {
    duplicates: &'a RefCell<Vec<String>>,
    path: Option<&'a Step<'a>>,
}

impl Node<'_> {
    fn below<'b>(&'b self, step: &'b Step<'b>) -> Node<'b> {
        Node { duplicates: self.duplicates, path: Some(step) }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom(format_args!("{value} is not a JSON number")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        self.deserialize(reader)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let step = Step { parent: self.path, at: At::Index(list.len()) };
            match access.next_element_seed(self.below(&step))? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key_seed(Key)? {
            let step = Step { parent: self.path, at: At::Key(&key) };
            let value = access.next_value_seed(self.below(&step))?;
            if map.contains_key(&key) && self.duplicates.borrow().len() < DUPLICATES_MAX {
                self.duplicates.borrow_mut().push(step.to_string());
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// A key: text in JSON, any scalar in YAML.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<String, D::Error> {
        reader.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }
}
