//! Schemas and paths on their own.

use serde_json::{Value, json};

use super::path::JsonPath;
use super::structural::Structural;
use super::{default, prune, validate};

fn wrong(schema: &Value, value: &Value) -> Vec<String> {
    let schema = Structural::parse(schema);
    validate::validate_at("a", value, None, &schema).iter().map(ToString::to_string).collect()
}

#[test]
fn what_breaks_a_schema_is_told_in_kubernetes_words() {
    let text = |more: Value| {
        let mut schema = json!({ "type": "string" });
        schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        schema
    };
    for (schema, value, expected) in [
        (
            text(json!({ "minLength": 3 })),
            json!("ab"),
            "a: Invalid value: \"ab\": a in body should be at least 3 chars long",
        ),
        (text(json!({ "maxLength": 1 })), json!("ab"), "a: Too long: may not be more than 1 bytes"),
        (
            text(json!({ "pattern": "^b$" })),
            json!("ab"),
            "a: Invalid value: \"ab\": a in body should match '^b$'",
        ),
        (
            text(json!({ "format": "date-time" })),
            json!("x"),
            "a: Invalid value: \"x\": a in body must be of type date-time: \"x\"",
        ),
        (
            json!({ "type": "array", "items": { "type": "string" }, "maxItems": 1 }),
            json!(["a", "b"]),
            "a: Too many: 2: must have at most 1 item",
        ),
        (
            json!({ "type": "object", "minProperties": 1 }),
            json!({}),
            "a: Invalid value: {}: a in body should have at least 1 properties",
        ),
        (
            json!({ "type": "integer", "multipleOf": 5 }),
            json!(7),
            "a: Invalid value: 7: a in body should be a multiple of 5",
        ),
        (
            json!({ "type": "integer", "minimum": 1, "exclusiveMinimum": true }),
            json!(1),
            "a: Invalid value: 1: a in body should be greater than 1",
        ),
        (
            json!({ "type": "integer", "oneOf": [{ "minimum": 1 }, { "minimum": 2 }] }),
            json!(3),
            "<nil>: Invalid value: \"\": \"a\" must validate one and only one schema (oneOf). Found \
             2 valid alternatives",
        ),
        (
            json!({ "type": "integer", "anyOf": [{ "minimum": 4 }] }),
            json!(3),
            "<nil>: Invalid value: \"\": \"a\" must validate at least one schema (anyOf)",
        ),
        (
            json!({ "type": "integer", "not": { "minimum": 1 } }),
            json!(3),
            "<nil>: Invalid value: \"\": \"a\" must not validate the schema (not)",
        ),
        (
            json!({ "type": "string" }),
            json!(null),
            "a: Invalid value: \"null\": a in body must be of type string: \"null\"",
        ),
    ] {
        assert_eq!(wrong(&schema, &value), [expected], "{schema}");
    }
    assert!(wrong(&json!({ "type": "string", "nullable": true }), &Value::Null).is_empty());
    assert!(wrong(&json!({ "x-kubernetes-int-or-string": true }), &json!("x")).is_empty());
}

#[test]
fn nulls_that_are_no_values_are_defaulted_or_go() {
    let schema = Structural::parse(&json!({ "type": "object", "properties": {
        "foo": { "type": "string", "default": "d" },
        "bar": { "type": "string", "nullable": true },
        "baz": { "type": "string" },
        "in": { "type": "object", "default": {}, "properties": {
            "deep": { "type": "integer", "default": 1 },
        } },
    } }));
    let mut value = json!({ "foo": null, "bar": null, "baz": null });
    default::default(&mut value, &schema);
    assert_eq!(value, json!({ "foo": "d", "bar": null, "in": { "deep": 1 } }));
}

#[test]
fn metadata_of_a_resource_within_an_object_has_the_form_of_metadata() {
    let schema = Structural::of_version(&json!({ "type": "object", "properties": {
        "list": { "type": "array", "items": {
            "type": "object", "x-kubernetes-embedded-resource": true,
            "x-kubernetes-preserve-unknown-fields": true,
        }},
    }}));
    let mut value = json!({
        "metadata": { "name": "a" },
        "list": [{ "kind": "Pod", "metadata": { "name": "b", "odd": 1 }, "any": 1 }],
    });
    assert_eq!(prune::prune(&mut value, &schema), ["list[0].metadata.odd"]);
    let inner = json!({ "kind": "Pod", "metadata": { "name": "b" }, "any": 1 });
    assert_eq!(value["list"][0], inner);
}

#[test]
fn unknown_fields_go_unless_they_are_preserved() {
    let schema = Structural::of_version(&json!({ "type": "object", "properties": {
        "list": { "type": "array", "items": { "type": "object", "properties": { "a": {} } } },
        "map": { "type": "object", "additionalProperties": { "type": "string" } },
        "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "closed": { "type": "object" },
        } },
        "pod": {
            "type": "object", "x-kubernetes-embedded-resource": true,
            "properties": { "spec": { "type": "object" } },
        },
    } }));
    let mut value = json!({
        "kind": "X", "metadata": { "name": "a" }, "gone": 1,
        "list": [{ "a": 1, "b": 2 }],
        "map": { "x": "y" },
        "free": { "any": 1, "closed": { "x": 1 } },
        "pod": { "kind": "Pod", "metadata": {}, "spec": { "x": 1 }, "status": {} },
    });
    let unknown = prune::prune(&mut value, &schema);
    let gone = ["free.closed.x", "gone", "list[0].b", "pod.spec.x", "pod.status"];
    let mut sorted = unknown.clone();
    sorted.sort();
    assert_eq!(sorted, gone);
    assert_eq!(
        value,
        json!({
            "kind": "X", "metadata": { "name": "a" },
            "list": [{ "a": 1 }],
            "map": { "x": "y" },
            "free": { "any": 1, "closed": {} },
            "pod": { "kind": "Pod", "metadata": {}, "spec": {} },
        })
    );
}

#[test]
fn paths_of_columns_lead_to_values() {
    let object = json!({
        "spec": { "n": 3, "a.b": 1 },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }, { "type": "B" }] },
        "list": [1, 2, 3],
    });
    for (path, expected) in [
        (".spec.n", vec![json!(3)]),
        (r".spec.a\.b", vec![json!(1)]),
        (".spec['a.b']", vec![json!(1)]),
        (".status.conditions[?(@.type==\"Ready\")].status", vec![json!("True")]),
        (".list[-1]", vec![json!(3)]),
        (".list[*]", vec![json!(1), json!(2), json!(3)]),
        (".none.there", vec![]),
    ] {
        let found = JsonPath::parse(path).unwrap();
        let found: Vec<Value> = found.find(&object).into_iter().cloned().collect();
        assert_eq!(found, expected, "{path}");
    }
    assert_eq!(JsonPath::parse("spec"), None);
}
