//! [`At`]: a place in an object, which knows both its value and its path.
//!
//! Validation walks an object by cursors, so that an error can name the field in Kubernetes' words
//! (`spec.containers[0].image`) without a path being built for the fields that are right. An
//! absent field and a null are the same place with [`Value::Null`], as they are to Kubernetes.

use std::fmt;

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

/// A place in an object. Its `Display` is the path of the place.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
    value: &'a Value,
}

impl<'a> At<'a> {
    /// The whole of an object.
    pub fn root(value: &'a Value) -> Self {
        Self { parent: None, step: Step::Root, value }
    }

    /// A value that stands at the top under `name`: for values that are validated on their own.
    pub fn named(name: &'a str, value: &'a Value) -> Self {
        Self { parent: None, step: Step::Field(name), value }
    }

    /// A field.
    #[must_use]
    pub fn at(&'a self, name: &'a str) -> At<'a> {
        let value = self.value.get(name).unwrap_or(&NULL);
        At { parent: Some(self), step: Step::Field(name), value }
    }

    /// The element of a list.
    #[must_use]
    pub fn index(&'a self, index: usize) -> At<'a> {
        let value = self.value.get(index).unwrap_or(&NULL);
        At { parent: Some(self), step: Step::Index(index), value }
    }

    /// The entry of a map whose keys are data: `metadata.labels[app]`.
    #[must_use]
    pub fn key(&'a self, key: &'a str) -> At<'a> {
        let value = self.value.get(key).unwrap_or(&NULL);
        At { parent: Some(self), step: Step::Key(key), value }
    }

    /// The same place with another value: the one it had before an update, say.
    #[must_use]
    pub fn with(&'a self, value: &'a Value) -> At<'a> {
        At { value, ..*self }
    }

    /// What stands there.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// Whether anything stands there.
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// The text there; empty where there is none.
    pub fn str(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The number there, if there is one.
    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// The number there; 0 where there is none.
    pub fn int_or_zero(&self) -> i64 {
        self.int().unwrap_or(0)
    }

    /// Whether it is set and true.
    pub fn is_true(&self) -> bool {
        self.value.as_bool().unwrap_or(false)
    }

    /// How many elements or entries it has.
    pub fn len(&self) -> usize {
        match self.value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.len(),
            _ => 0,
        }
    }

    /// Whether it is absent, or a list, map or text with nothing in it.
    pub fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::Array(_) | Value::Object(_) | Value::String(_) => self.len() == 0,
            _ => false,
        }
    }

    /// The elements of a list, each at its index.
    pub fn items(&'a self) -> impl DoubleEndedIterator<Item = At<'a>> + ExactSizeIterator {
        let list: &'a [Value] = self.value.as_array().map_or(&[], Vec::as_slice);
        list.iter().enumerate().map(|(index, value)| At {
            parent: Some(self),
            step: Step::Index(index),
            value,
        })
    }

    /// The entries of a map whose keys are data, in the order of the keys.
    pub fn entries(&'a self) -> impl Iterator<Item = (&'a str, At<'a>)> {
        self.map().into_iter().flatten().map(|(key, value)| {
            (key.as_str(), At { parent: Some(self), step: Step::Key(key), value })
        })
    }

    /// The map there, if there is one.
    pub fn map(&self) -> Option<&'a Map<String, Value>> {
        self.value.as_object()
    }

    /// The texts of a list.
    pub fn strings(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.value.as_array().into_iter().flatten().filter_map(Value::as_str)
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(out)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) => {
                let first = self.parent.is_none_or(|parent| matches!(parent.step, Step::Root));
                write!(out, "{}{name}", if first { "" } else { "." })
            }
            Step::Index(index) => write!(out, "[{index}]"),
            Step::Key(key) => write!(out, "[{key}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_place_names_its_path_as_kubernetes_does() {
        let pod =
            json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"image": "i"}]}});
        let root = At::root(&pod);
        let (spec, metadata) = (root.at("spec"), root.at("metadata"));
        let containers = spec.at("containers");
        let first = containers.index(0);
        assert_eq!(first.at("image").to_string(), "spec.containers[0].image");
        assert_eq!(first.at("image").str(), "i");
        let labels = metadata.at("labels");
        assert_eq!(labels.key("app").to_string(), "metadata.labels[app]");
        assert!(!first.at("name").is_set());
    }
}
