//! What a schema does not know goes.

use serde_json::{Map, Value};

use super::structural::Structural;
use crate::codec::conform_metadata;

/// Most unknown fields that are reported.
const UNKNOWN_MAX: usize = 100;

/// Drops the fields that the schema does not know, and gives their paths. The type and the metadata
/// of a resource are not the schema's: of one within the object, the metadata is brought into the form
/// that the object's own has already.
pub(crate) fn prune(object: &mut Value, schema: &Structural) -> Vec<String> {
    let mut walk = Walk { path: String::new(), unknown: Vec::new() };
    walk.value(object, schema);
    walk.unknown
}

struct Walk {
    path: String,
    unknown: Vec<String>,
}

impl Walk {
    fn below(&mut self, step: &str, act: impl FnOnce(&mut Self)) {
        let end = self.path.len();
        if end > 0 && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(step);
        act(self);
        self.path.truncate(end);
    }

    fn value(&mut self, value: &mut Value, schema: &Structural) {
        match value {
            Value::Object(map) => self.object(map, schema),
            Value::Array(list) => {
                let Some(items) = &schema.items else { return };
                for (index, item) in list.iter_mut().enumerate() {
                    self.below(&format!("[{index}]"), |walk| walk.value(item, items));
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, map: &mut Map<String, Value>, schema: &Structural) {
        if !self.path.is_empty() && schema.is_of_resource("metadata") {
            self.metadata(map);
        }
        let mut gone = Vec::new();
        for (key, value) in map.iter_mut() {
            match schema.below(key) {
                _ if schema.is_of_resource(key) => {}
                Some(below) => self.below(key, |walk| walk.value(value, below)),
                None if schema.preserves_unknown => {}
                None => {
                    gone.push(key.clone());
                    self.below(key, Self::tell);
                }
            }
        }
        for key in gone {
            map.remove(&key);
        }
    }

    /// What is no metadata at all is left for the validation to tell.
    fn metadata(&mut self, map: &mut Map<String, Value>) {
        let mut conformed = map.clone();
        let Ok(unknown) = conform_metadata(&mut conformed) else { return };
        *map = conformed;
        for path in unknown {
            self.below(&path, Self::tell);
        }
    }

    fn tell(&mut self) {
        if self.unknown.len() < UNKNOWN_MAX {
            self.unknown.push(self.path.clone());
        }
    }
}
