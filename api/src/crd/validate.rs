//! What breaks a schema, in the words of the library that Kubernetes validates with.

mod format;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::structural::{Bound, Limits, ListType, Structural, Type};
use crate::status::FieldError;

/// Everything that is wrong with an object. What an update leaves as it was in `old` is not looked
/// at again: a schema may become stricter without holding up objects that were there before.
pub(super) fn validate(value: &Value, old: Option<&Value>, schema: &Structural) -> Vec<FieldError> {
    validate_at("", value, old, schema)
}

/// The same of a value within.
pub(super) fn validate_at(
    path: &str,
    value: &Value,
    old: Option<&Value>,
    schema: &Structural,
) -> Vec<FieldError> {
    let mut walk = Walk { errors: Vec::new() };
    walk.value(path, value, old, schema);
    walk.errors
}

struct Walk {
    errors: Vec<FieldError>,
}

/// A path one field further; the root has none.
fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// How a path is named on its own.
fn named(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

fn number(of: u64) -> usize {
    usize::try_from(of).unwrap_or(usize::MAX)
}

impl Walk {
    /// The value at the path breaks a rule: `PATH in body …`.
    fn invalid(&mut self, path: &str, value: &Value, why: &str) {
        let error =
            FieldError::invalid(named(path), value.clone(), format!("{path} in body {why}"));
        self.errors.push(error);
    }

    fn value(&mut self, path: &str, value: &Value, old: Option<&Value>, schema: &Structural) {
        if old == Some(value) || (value.is_null() && schema.nullable) {
            return;
        }
        if !is_of_type(value, schema.kind) {
            let (name, found) = (type_name(schema.kind), found_type(value));
            let why = format!("{path} in body must be of type {name}: {found:?}");
            self.errors.push(FieldError::type_invalid(named(path), found, why));
            return;
        }
        self.limits(path, value, &schema.limits);
        match value {
            Value::Object(map) => self.object(path, map, old, schema),
            Value::Array(list) => self.list(path, list, old, schema),
            _ => {}
        }
        self.combined(path, value, old, schema);
    }

    fn object(
        &mut self,
        path: &str,
        map: &Map<String, Value>,
        old: Option<&Value>,
        schema: &Structural,
    ) {
        for key in schema.limits.required.iter().filter(|key| !map.contains_key(*key)) {
            self.errors.push(FieldError::required(join(path, key), ""));
        }
        let (least, most) = schema.limits.properties;
        if let Some(most) = most.filter(|most| map.len() as u64 > *most) {
            self.errors.push(FieldError::too_many(named(path), map.len(), number(most)));
        }
        if let Some(least) = least.filter(|least| (map.len() as u64) < *least) {
            let value = Value::Object(map.clone());
            self.invalid(path, &value, &format!("should have at least {least} properties"));
        }
        for (key, value) in map.iter().filter(|(key, _)| !schema.is_of_resource(key)) {
            if let Some(below) = schema.below(key) {
                let old = old.and_then(|old| old.get(key));
                self.value(&join(path, key), value, old, below);
            }
        }
    }

    fn list(&mut self, path: &str, list: &[Value], old: Option<&Value>, schema: &Structural) {
        let (least, most) = schema.limits.items;
        if let Some(most) = most.filter(|most| list.len() as u64 > *most) {
            self.errors.push(FieldError::too_many(named(path), list.len(), number(most)));
        }
        if let Some(least) = least.filter(|least| (list.len() as u64) < *least) {
            let why = format!("should have at least {least} items");
            self.invalid(path, &Value::Array(list.to_vec()), &why);
        }
        let mut seen = BTreeSet::new();
        for (index, item) in list.iter().enumerate() {
            let at = format!("{path}[{index}]");
            let identity = identity(item, &schema.list);
            if let Some(identity) = &identity
                && !seen.insert(identity.to_string())
            {
                self.errors.push(FieldError::duplicate(at.as_str(), identity.clone()));
            }
            if let Some(items) = &schema.items {
                let old = identity.and_then(|identity| same(old?, &identity, &schema.list));
                self.value(&at, item, old, items);
            }
        }
    }

    fn limits(&mut self, path: &str, value: &Value, limits: &Limits) {
        if let Some(values) = limits.values.as_ref().filter(|values| !values.contains(value)) {
            let texts: Vec<String> = values
                .iter()
                .map(|value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
                .collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            self.errors.push(FieldError::not_supported(named(path), value.clone(), &texts));
        }
        match value {
            Value::String(text) => self.text(path, text, limits),
            Value::Number(_) => self.number(path, value, limits),
            _ => {}
        }
    }

    fn text(&mut self, path: &str, text: &str, limits: &Limits) {
        let value = Value::from(text);
        let length = text.chars().count() as u64;
        if let Some(most) = limits.length.1.filter(|most| length > *most) {
            self.errors.push(FieldError::too_long(named(path), number(most)));
        }
        if let Some(least) = limits.length.0.filter(|least| length < *least) {
            self.invalid(path, &value, &format!("should be at least {least} chars long"));
        }
        if let Some(pattern) = &limits.pattern
            && !pattern.regex.as_ref().is_some_and(|regex| regex.is_match(text))
        {
            self.invalid(path, &value, &format!("should match '{}'", pattern.text));
        }
        if !format::holds(text, &limits.format) {
            let why = format!("must be of type {}: {text:?}", limits.format);
            self.invalid(path, &value, &why);
        }
    }

    fn number(&mut self, path: &str, value: &Value, limits: &Limits) {
        let number = value.as_f64().unwrap_or_default();
        let why = match limits.minimum {
            Some(Bound::Exclusive(least)) if number <= least => format!("greater than {least}"),
            Some(Bound::Inclusive(least)) if number < least => {
                format!("greater than or equal to {least}")
            }
            _ => String::new(),
        };
        if !why.is_empty() {
            self.invalid(path, value, &format!("should be {why}"));
        }
        let why = match limits.maximum {
            Some(Bound::Exclusive(most)) if number >= most => format!("less than {most}"),
            Some(Bound::Inclusive(most)) if number > most => {
                format!("less than or equal to {most}")
            }
            _ => String::new(),
        };
        if !why.is_empty() {
            self.invalid(path, value, &format!("should be {why}"));
        }
        if let Some(factor) = limits.multiple_of.filter(|factor| *factor > 0.0) {
            let times = number / factor;
            if (times - times.round()).abs() > f64::EPSILON * times.abs().max(1.0) {
                self.invalid(path, value, &format!("should be a multiple of {factor}"));
            }
        }
    }

    /// Schemas of the same value. Of these only the whole is said to fail, except of those that must
    /// all hold.
    fn combined(&mut self, path: &str, value: &Value, old: Option<&Value>, schema: &Structural) {
        for part in &schema.all_of {
            self.value(path, value, old, part);
        }
        let holds = |part: &&Structural| validate_at(path, value, old, part).is_empty();
        if !schema.any_of.is_empty() && !schema.any_of.iter().any(|part| holds(&part)) {
            self.composite(format!("{path:?} must validate at least one schema (anyOf)"));
        }
        let valid = schema.one_of.iter().filter(holds).count();
        if !schema.one_of.is_empty() && valid != 1 {
            let found = match valid {
                0 => "Found none valid".to_owned(),
                many => format!("Found {many} valid alternatives"),
            };
            let rule = "must validate one and only one schema (oneOf)";
            self.composite(format!("{path:?} {rule}. {found}"));
        }
        if schema.not.as_deref().is_some_and(|not| holds(&not)) {
            self.composite(format!("{path:?} must not validate the schema (not)"));
        }
    }

    fn composite(&mut self, why: String) {
        self.errors.push(FieldError::invalid("<nil>", "", why));
    }
}

/// What tells an element from the others, where the list says.
fn identity(item: &Value, list: &ListType) -> Option<Value> {
    match list {
        ListType::Atomic => None,
        ListType::Set => Some(item.clone()),
        ListType::Map(keys) => {
            let key = |(key, default): &(String, Option<Value>)| {
                let value = item.get(key).cloned().or_else(|| default.clone())?;
                Some((key.clone(), value))
            };
            Some(Value::Object(keys.iter().filter_map(key).collect()))
        }
    }
}

/// The element of the old list that is the same.
fn same<'a>(old: &'a Value, wanted: &Value, list: &ListType) -> Option<&'a Value> {
    old.as_array()?.iter().find(|item| identity(item, list).as_ref() == Some(wanted))
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn is_of_type(value: &Value, kind: Type) -> bool {
    match kind {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => is_whole(value),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
        Type::IntOrString => value.is_string() || is_whole(value),
    }
}

fn type_name(kind: Type) -> &'static str {
    match kind {
        Type::Any => "any",
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
        Type::IntOrString => "integer,string",
    }
}

fn found_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_whole(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
