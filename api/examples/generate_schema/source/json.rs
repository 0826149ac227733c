//! The JSON side: k8s-openapi's schemas, by name.

use std::collections::BTreeMap;

use kontiki_api::openapi::roots::ROOTS;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// Each definition reachable from a root, by OpenAPI name; roots have `"x-root": true`.
pub(crate) fn definitions() -> BTreeMap<String, Value> {
    let mut generator = SchemaSettings::openapi3().into_generator();
    for root in ROOTS {
        (root.describe)(&mut generator);
    }
    generator.take_definitions(false).into_iter().collect()
}

/// The name a schema refers to, directly or through `allOf`.
pub(crate) fn reference(schema: &Value) -> Option<&str> {
    let direct = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref"))?;
    direct.as_str()?.rsplit('/').next()
}
