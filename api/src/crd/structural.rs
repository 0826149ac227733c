//! [`Structural`]: the schema of a version of a definition, read once.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Type {
    /// Nothing is said.
    #[default]
    Any,
    /// A map.
    Object,
    /// A list.
    Array,
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A whole number or a text.
    IntOrString,
}

/// How the elements of a list are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListType {
    /// Not at all.
    #[default]
    Atomic,
    /// By their value.
    Set,
    /// By these fields, some with defaults.
    Map(Vec<(String, Option<Value>)>),
}

/// The end of a range of numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// It belongs to the range.
    Inclusive(f64),
    /// It does not.
    Exclusive(f64),
}

/// What a value must be beside its type.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// One of these.
    pub values: Option<Vec<Value>>,
    /// Text of this form, by its name.
    pub format: String,
    /// Text of this pattern.
    pub pattern: Option<Pattern>,
    /// Numbers not below this.
    pub minimum: Option<Bound>,
    /// Numbers not above this.
    pub maximum: Option<Bound>,
    /// Numbers that are a multiple of this.
    pub multiple_of: Option<f64>,
    /// The least and the most characters.
    pub length: (Option<u64>, Option<u64>),
    /// The least and the most elements.
    pub items: (Option<u64>, Option<u64>),
    /// The least and the most keys.
    pub properties: (Option<u64>, Option<u64>),
    /// Keys that must be there.
    pub required: Vec<String>,
}

/// A pattern and its text.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// As the schema has it.
    pub text: String,
    /// Compiled; `None` where it cannot be, which [`super::check`] refuses and which matches nothing.
    pub regex: Option<Regex>,
}

/// A node of a schema.
#[derive(Debug, Clone, Default)]
pub struct Structural {
    /// The type.
    pub kind: Type,
    /// Null is a value of it.
    pub nullable: bool,
    /// Fields that it does not know are kept.
    pub preserves_unknown: bool,
    /// It is an object with a type and metadata: the whole, or one within.
    pub is_resource: bool,
    /// The known keys.
    pub fields: BTreeMap<String, Structural>,
    /// What all other keys hold.
    pub values: Option<Box<Structural>>,
    /// What the elements are.
    pub items: Option<Box<Structural>>,
    /// What it is where it is missing.
    pub default: Option<Value>,
    /// How server-side apply merges a list.
    pub list: ListType,
    /// Server-side apply owns the map as a whole.
    pub is_atomic_map: bool,
    /// What a value must be.
    pub limits: Limits,
    /// Schemas of which all must hold.
    pub all_of: Vec<Structural>,
    /// Schemas of which some must hold.
    pub any_of: Vec<Structural>,
    /// Schemas of which exactly one must hold.
    pub one_of: Vec<Structural>,
    /// A schema that must not hold.
    pub not: Option<Box<Structural>>,
}

impl Structural {
    /// Reads the schema of whole objects.
    pub fn of_version(schema: &Value) -> Self {
        Self { is_resource: true, ..Self::parse(schema) }
    }

    /// Reads a schema. What is not understood is left out: [`super::check`] refuses it where the
    /// definition is written.
    pub fn parse(schema: &Value) -> Self {
        let is = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or_default();
        let all = |key: &str| {
            let list = schema.get(key).and_then(Value::as_array).into_iter().flatten();
            list.map(Self::parse).collect::<Vec<_>>()
        };
        let one = |key: &str| schema.get(key).map(|value| Box::new(Self::parse(value)));
        let fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let values = match schema.get("additionalProperties") {
            Some(Value::Bool(true)) => {
                Some(Box::new(Self { preserves_unknown: true, ..Self::default() }))
            }
            Some(Value::Object(_)) => one("additionalProperties"),
            _ => None,
        };
        let items = one("items");
        Self {
            kind: kind(schema),
            nullable: is("nullable"),
            preserves_unknown: is("x-kubernetes-preserve-unknown-fields"),
            is_resource: is("x-kubernetes-embedded-resource"),
            fields: fields.map(|(key, value)| (key.clone(), Self::parse(value))).collect(),
            values,
            list: list_type(schema, items.as_deref()),
            items,
            default: schema.get("default").cloned(),
            is_atomic_map: text(schema, "x-kubernetes-map-type") == "atomic",
            limits: limits(schema),
            all_of: all("allOf"),
            any_of: all("anyOf"),
            one_of: all("oneOf"),
            not: one("not"),
        }
    }

    /// What a key holds, where the schema says so.
    pub fn below(&self, key: &str) -> Option<&Self> {
        self.fields.get(key).or(self.values.as_deref())
    }

    /// Whether a key is that of every resource, and none of the schema's.
    pub fn is_of_resource(&self, key: &str) -> bool {
        self.is_resource && matches!(key, "apiVersion" | "kind" | "metadata")
    }
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn kind(schema: &Value) -> Type {
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        return Type::IntOrString;
    }
    match text(schema, "type") {
        "object" => Type::Object,
        "array" => Type::Array,
        "string" => Type::String,
        "integer" => Type::Integer,
        "number" => Type::Number,
        "boolean" => Type::Boolean,
        _ => Type::Any,
    }
}

fn list_type(schema: &Value, items: Option<&Structural>) -> ListType {
    match text(schema, "x-kubernetes-list-type") {
        "set" => ListType::Set,
        "map" => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let keys = keys.into_iter().flatten().filter_map(Value::as_str);
            let default = |key: &str| items?.fields.get(key)?.default.clone();
            ListType::Map(keys.map(|key| (key.to_owned(), default(key))).collect())
        }
        _ => ListType::Atomic,
    }
}

fn limits(schema: &Value) -> Limits {
    let whole = |key: &str| schema.get(key).and_then(Value::as_u64);
    let bound = |key: &str, exclusive: &str| {
        let bound = schema.get(key).and_then(Value::as_f64)?;
        let is_exclusive = schema.get(exclusive) == Some(&Value::Bool(true));
        Some(if is_exclusive { Bound::Exclusive(bound) } else { Bound::Inclusive(bound) })
    };
    let pattern = schema.get("pattern").and_then(Value::as_str).filter(|text| !text.is_empty());
    let pattern =
        pattern.map(|text| Pattern { text: text.to_owned(), regex: Regex::new(text).ok() });
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    Limits {
        values: schema.get("enum").and_then(Value::as_array).cloned(),
        format: text(schema, "format").to_owned(),
        pattern,
        minimum: bound("minimum", "exclusiveMinimum"),
        maximum: bound("maximum", "exclusiveMaximum"),
        multiple_of: schema.get("multipleOf").and_then(Value::as_f64),
        length: (whole("minLength"), whole("maxLength")),
        items: (whole("minItems"), whole("maxItems")),
        properties: (whole("minProperties"), whole("maxProperties")),
        required: required.filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
    }
}
