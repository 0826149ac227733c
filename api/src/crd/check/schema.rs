//! Whether a schema is structural: of every field one knows what it is.

use regex::Regex;
use serde_json::Value;

use super::super::rules::{self, Problem};
use super::super::structural::Structural;
use super::super::{prune, validate};
use crate::validation::at::At;
use crate::validation::errors::Errors;

/// What a node of a schema describes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// What a rule may say that is wrong.
const REASONS: [&str; 4] =
    ["FieldValueRequired", "FieldValueForbidden", "FieldValueInvalid", "FieldValueDuplicate"];
/// What JSON schema has and definitions have not.
const UNSUPPORTED: [&str; 6] =
    ["$ref", "additionalItems", "definitions", "dependencies", "id", "patternProperties"];
/// What the parts of a combination may not say, and what it is then to be.
const NOT_WITHIN: [(&str, &str); 12] = [
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("title", "must be empty to be structural"),
    ("type", "must be empty to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
];

/// Everything that is wrong with the schema of a version.
pub(super) fn check(errors: &mut Errors, schema: &At<'_>) {
    node(errors, schema, Level::Root, Elements::No);
}

/// Whether a node is, or is within, the elements of a list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Elements {
    Yes,
    No,
}

fn node(errors: &mut Errors, schema: &At<'_>, level: Level, elements: Elements) {
    check_type(errors, schema, level);
    check_form(errors, schema);
    check_list(errors, schema);
    check_map(errors, schema);
    check_resource(errors, schema, level);
    check_default(errors, schema, level);
    check_rules(errors, schema, elements);
    combinations(errors, schema, schema);
    let properties = schema.at("properties");
    for (_, field) in properties.entries() {
        node(errors, &field, Level::Field, elements);
    }
    let values = schema.at("additionalProperties");
    if values.value().is_object() {
        node(errors, &values, Level::Field, elements);
    }
    let items = schema.at("items");
    if items.value().is_object() {
        node(errors, &items, Level::Item, Elements::Yes);
    }
}

fn check_type(errors: &mut Errors, schema: &At<'_>, level: Level) {
    let kind = schema.at("type");
    let is_free = schema.at("x-kubernetes-int-or-string").is_true()
        || schema.at("x-kubernetes-preserve-unknown-fields").is_true();
    match (kind.str(), level) {
        ("", Level::Root) => errors.required(&kind, "must not be empty at the root"),
        ("", Level::Item) if !is_free => {
            errors.required(&kind, "must not be empty for specified array items");
        }
        ("", Level::Field) if !is_free => {
            errors.required(&kind, "must not be empty for specified object fields");
        }
        ("", _) => {}
        ("null", _) => {
            errors.forbidden(&kind, "type cannot be set to null, use nullable as an alternative");
        }
        (other, Level::Root) if other != "object" => {
            errors.invalid(&kind, "must be object at the root");
        }
        (other, _) if !TYPES.contains(&other) => errors.not_supported(&kind, &TYPES),
        _ => {}
    }
    if kind.is_set() && schema.at("x-kubernetes-int-or-string").is_true() {
        let why = "must be empty if x-kubernetes-int-or-string is true";
        errors.invalid(&kind, why);
    }
}

/// What no schema may say, wherever it stands.
fn check_form(errors: &mut Errors, schema: &At<'_>) {
    for field in UNSUPPORTED.into_iter().filter(|field| schema.at(field).is_set()) {
        errors.forbidden(&schema.at(field), format!("{field} is not supported"));
    }
    if schema.at("uniqueItems").is_true() {
        let why =
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(&schema.at("uniqueItems"), why);
    }
    let pattern = schema.at("pattern");
    if let Some(error) = Regex::new(pattern.str()).err().filter(|_| !pattern.is_empty()) {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        errors.invalid(&pattern, why);
    }
}

fn check_list(errors: &mut Errors, schema: &At<'_>) {
    let (items, list) = (schema.at("items"), schema.at("x-kubernetes-list-type"));
    let is_array = schema.at("type").str() == "array";
    if items.value().is_array() {
        errors.forbidden(&items, "items must be a schema object and not an array");
    }
    if is_array && !items.is_set() {
        errors.required(&items, "must be specified");
    }
    let keys = schema.at("x-kubernetes-list-map-keys");
    if list.is_set() && !is_array {
        let kind = schema.at("type");
        errors.invalid(&kind, "must be array if x-kubernetes-list-type is set");
    }
    errors.optional_one_of(&list, &["atomic", "map", "set"]);
    if list.str() != "map" {
        if !keys.is_empty() {
            errors.invalid(&list, "must be map if x-kubernetes-list-map-keys is non-empty");
        }
        return;
    }
    if keys.is_empty() {
        errors.required(&keys, "must not be empty if x-kubernetes-list-type is map");
    }
    if items.at("type").str() != "object" {
        let kind = items.at("type");
        errors.invalid(&kind, "must be object if parent array's x-kubernetes-list-type is map");
    }
    check_keys(errors, &keys, &items);
}

fn check_keys(errors: &mut Errors, keys: &At<'_>, items: &At<'_>) {
    let properties = items.at("properties");
    for key in keys.items() {
        let field = properties.key(key.str());
        if !field.is_set() {
            errors.invalid(&key, "entries must all be names of item properties");
            continue;
        }
        let is_required = items.at("required").strings().any(|name| name == key.str());
        if !is_required && !field.at("default").is_set() {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or \
                       be a required property";
            errors.required(&field.at("default"), why);
        }
        if matches!(field.at("type").str(), "object" | "array") {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.invalid(&field.at("type"), why);
        }
    }
}

fn check_map(errors: &mut Errors, schema: &At<'_>) {
    let (values, map) = (schema.at("additionalProperties"), schema.at("x-kubernetes-map-type"));
    if values.value() == &Value::Bool(false) {
        errors.forbidden(&values, "additionalProperties cannot be set to false");
    } else if values.is_set() && !schema.at("properties").is_empty() {
        errors.forbidden(&values, "additionalProperties and properties are mutual exclusive");
    }
    errors.optional_one_of(&map, &["atomic", "granular"]);
    if map.is_set() && schema.at("type").str() != "object" {
        errors.invalid(&schema.at("type"), "must be object if x-kubernetes-map-type is set");
    }
}

/// A resource, the whole or one within, has its type and metadata without saying so.
fn check_resource(errors: &mut Errors, schema: &At<'_>, level: Level) {
    let (values, properties) = (schema.at("additionalProperties"), schema.at("properties"));
    let is_embedded = schema.at("x-kubernetes-embedded-resource").is_true();
    if is_embedded {
        if schema.at("type").str() != "object" {
            let why = "must be object if x-kubernetes-embedded-resource is true";
            errors.invalid(&schema.at("type"), why);
        }
        if values.is_set() {
            let why = "must not be used if x-kubernetes-embedded-resource is set";
            errors.forbidden(&values, why);
        }
        let preserves = schema.at("x-kubernetes-preserve-unknown-fields").is_true();
        if !preserves && properties.is_empty() {
            let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                       x-kubernetes-preserve-unknown-fields";
            errors.required(&properties, why);
        }
    }
    if level == Level::Root && values.is_set() {
        errors.forbidden(&values, "must not be used at the root");
    }
    let metadata = properties.key("metadata");
    if !metadata.is_set() || !(is_embedded || level == Level::Root) {
        return;
    }
    if metadata.at("type").str() != "object" {
        errors.invalid(&metadata.at("type"), "must be object");
    }
    let is_known = |(name, _): (&str, At<'_>)| matches!(name, "name" | "generateName");
    if !metadata.at("properties").entries().all(is_known) {
        let why = "must not specify anything other than name and generateName, but metadata is \
                   implicitly specified";
        errors.forbidden(&metadata, why);
    }
}

/// A default must itself be of the schema.
fn check_default(errors: &mut Errors, schema: &At<'_>, level: Level) {
    let default = schema.at("default");
    if !default.is_set() {
        return;
    }
    if level == Level::Root {
        errors.forbidden(&default, "must not be set at the root");
        return;
    }
    let structural = Structural::parse(schema.value());
    let mut value = default.value().clone();
    if !prune::prune(&mut value, &structural).is_empty() {
        errors.invalid(&default, "must not have unknown fields");
    }
    let path = default.to_string();
    for problem in validate::validate_at(&path, default.value(), None, &structural) {
        errors.push(problem);
    }
}

/// Rules are refused where they cannot be checked as Kubernetes does.
fn check_rules(errors: &mut Errors, schema: &At<'_>, elements: Elements) {
    let rules = schema.at(rules::RULES);
    for rule in rules.items() {
        let (text, message) = (rule.at("rule"), rule.at("message"));
        if text.str().trim().is_empty() {
            errors.required(&text, "rule is not specified");
            continue;
        }
        match rules::problem(schema.value(), rule.value()) {
            Some(Problem::Uncompilable(why)) => {
                errors.invalid(&text, format!("compilation failed: {why}"));
            }
            Some(Problem::Costly(why)) => errors.forbidden(&text, why),
            None => {}
        }
        if message.str().contains('\n') {
            errors.invalid(&message, "message must not contain line breaks");
        }
        errors.optional_one_of(&rule.at("reason"), &REASONS);
        if rule.at("optionalOldSelf").is_true() {
            errors.forbidden(&rule.at("optionalOldSelf"), "optionalOldSelf is not supported");
        }
        if elements == Elements::Yes && text.str().contains("oldSelf") {
            errors.invalid(&text, "oldSelf cannot be used within the elements of a list");
        }
    }
}

/// The parts of combinations restrict what `whole` says, and say nothing new.
fn combinations(errors: &mut Errors, schema: &At<'_>, whole: &At<'_>) {
    for list in ["allOf", "anyOf", "oneOf"] {
        for part in schema.at(list).items() {
            within(errors, &part, whole);
        }
    }
    let not = schema.at("not");
    if not.is_set() {
        within(errors, &not, whole);
    }
}

fn within(errors: &mut Errors, part: &At<'_>, whole: &At<'_>) {
    let is_int_or_string = whole.at("x-kubernetes-int-or-string").is_true();
    for (field, why) in NOT_WITHIN {
        let said = part.at(field);
        let is_said = said.is_set() && said.value() != &Value::Bool(false);
        if is_said && !(field == "type" && is_int_or_string) {
            errors.forbidden(&said, why);
        }
    }
    check_form(errors, part);
    combinations(errors, part, whole);
    let (properties, known) = (part.at("properties"), whole.at("properties"));
    let values = whole.at("additionalProperties");
    for (name, field) in properties.entries() {
        let own = known.key(name);
        if own.is_set() {
            within(errors, &field, &own);
        } else if !values.value().is_object() {
            let why = format!("because it is defined in {field}");
            errors.required(&own, why);
        }
    }
    let (items, own) = (part.at("items"), whole.at("items"));
    if items.is_set() && own.is_set() {
        within(errors, &items, &own);
    } else if items.is_set() {
        errors.required(&own, format!("because it is defined in {items}"));
    }
}
