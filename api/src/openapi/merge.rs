//! Other servers' documents within this server's, in the second form: paths that are there stay, and a
//! definition of a name that means something else here gets another name.

use serde_json::{Map, Value};

const PREFIX: &str = "#/definitions/";

/// Adds the paths and the definitions of `part`.
pub(super) fn merge(document: &mut Value, part: &Value) {
    let names = Names::of(document, part);
    let map = |value: &Value, field: &str| value[field].as_object().cloned().unwrap_or_default();
    for (name, mut definition) in map(part, "definitions") {
        names.rename(&mut definition);
        let name = names.now(&name).to_owned();
        insert(document, "definitions", name, definition);
    }
    for (path, mut item) in map(part, "paths") {
        names.rename(&mut item);
        insert(document, "paths", path, item);
    }
}

fn insert(document: &mut Value, field: &str, name: String, value: Value) {
    if let Some(map) = document[field].as_object_mut() {
        map.entry(name).or_insert(value);
    }
}

/// The names of definitions that are called something else here.
struct Names(Map<String, Value>);

impl Names {
    fn of(document: &Value, part: &Value) -> Self {
        let known = &document["definitions"];
        let mut names = Map::new();
        for (name, definition) in part["definitions"].as_object().into_iter().flatten() {
            let is_free = |name: &str| known.get(name).is_none_or(|found| found == definition);
            if is_free(name) {
                continue;
            }
            let numbered = (2..).map(|number| format!("{name}_v{number}"));
            let free = numbered.into_iter().find(|name| is_free(name));
            names.extend(free.map(|free| (name.clone(), Value::from(free))));
        }
        Self(names)
    }

    fn now<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).and_then(Value::as_str).unwrap_or(name)
    }

    fn rename(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (key, inner) in map {
                    let reference = inner.as_str().filter(|_| key == "$ref");
                    match reference.and_then(|text| text.strip_prefix(PREFIX)) {
                        Some(name) => *inner = format!("{PREFIX}{}", self.now(name)).into(),
                        None => self.rename(inner),
                    }
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|inner| self.rename(inner)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_definition_that_means_something_else_gets_another_name() {
        let mut document = json!({
            "paths": { "/a": { "own": true } },
            "definitions": { "Meta": { "type": "object" }, "Same": { "type": "string" } },
        });
        let part = json!({
            "paths": { "/a": {}, "/b": { "$ref": "#/definitions/Thing" } },
            "definitions": {
                "Meta": { "type": "string" },
                "Same": { "type": "string" },
                "Thing": { "properties": { "$ref": { "$ref": "#/definitions/Meta" } } },
            },
        });
        merge(&mut document, &part);
        assert_eq!(document["paths"], json!({ "/a": { "own": true }, "/b": part["paths"]["/b"] }));
        let definitions = document["definitions"].as_object().unwrap();
        assert_eq!(definitions.keys().collect::<Vec<_>>(), ["Meta", "Meta_v2", "Same", "Thing"]);
        let thing = &document["definitions"]["Thing"];
        assert_eq!(thing["properties"]["$ref"]["$ref"], "#/definitions/Meta_v2");
    }
}
