//! Printer columns: the cells of `kubectl get` for a custom kind.

use jiff::Timestamp;
use serde_json::Value;

use super::path::JsonPath;
use crate::object::Object;
use crate::registry::strategy::Column;
use crate::table;

/// The columns of a version, with the ways to their cells.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) headings: &'static [Column],
    paths: Vec<Option<JsonPath>>,
}

impl Columns {
    /// The name, then those that the version wants, or the age where it wants none.
    pub(super) fn of(version: &Value) -> Self {
        let text = |column: &Value, field: &str| -> &'static str {
            let text = column.get(field).and_then(Value::as_str).unwrap_or_default();
            text.to_owned().leak()
        };
        let wanted = version.get("additionalPrinterColumns").and_then(Value::as_array);
        let wanted = wanted.map_or(&[][..], Vec::as_slice);
        let mut headings = vec![table::NAME];
        let mut paths = Vec::new();
        for column in wanted {
            let priority = column.get("priority").and_then(Value::as_i64).unwrap_or(0);
            headings.push(Column {
                name: text(column, "name"),
                kind: text(column, "type"),
                format: text(column, "format"),
                description: text(column, "description"),
                priority: i32::try_from(priority).unwrap_or(i32::MAX),
            });
            paths.push(JsonPath::parse(text(column, "jsonPath")));
        }
        if wanted.is_empty() {
            headings.push(Column { kind: "date", ..table::AGE });
            paths.push(JsonPath::parse(".metadata.creationTimestamp"));
        }
        Self { headings: headings.leak(), paths }
    }

    /// The cells of an object's row.
    pub(super) fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let mut cells = vec![Value::from(object.name())];
        for (heading, path) in self.headings[1..].iter().zip(&self.paths) {
            let found = path.as_ref().map(|path| path.find(object.value())).unwrap_or_default();
            cells.push(cell(heading.kind, &found, now));
        }
        cells
    }
}

/// Kubernetes shows the first of several values.
fn cell(kind: &str, found: &[&Value], now: Timestamp) -> Value {
    let Some(value) = found.first().filter(|value| !value.is_null()) else { return Value::Null };
    match kind {
        "string" => text(value).into(),
        "date" => value.as_str().map_or(Value::Null, |text| table::since(text, now).into()),
        "integer" => value.as_f64().map_or(Value::Null, |number| {
            #[allow(clippy::cast_possible_truncation, reason = "as Kubernetes shows it")]
            let whole = number as i64;
            whole.into()
        }),
        "number" => value.as_f64().map_or(Value::Null, Into::into),
        "boolean" => value.as_bool().map_or(Value::Null, Into::into),
        _ => Value::Null,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
