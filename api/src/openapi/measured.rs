//! The types of `metrics.k8s.io`, which k8s-openapi does not have.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::roots::Root;

const PACKAGE: &str = "io.k8s.metrics.pkg.apis.metrics.v1beta1";

/// What a node uses.
struct NodeMetrics;
/// What a pod uses.
struct PodMetrics;
/// What a container of a pod uses.
struct ContainerMetrics;

/// The roots of the group.
pub(super) const ROOTS: [Root; 2] = [
    Root {
        name: NodeMetrics::schema_name,
        describe: SchemaGenerator::subschema_for::<NodeMetrics>,
    },
    Root { name: PodMetrics::schema_name, describe: SchemaGenerator::subschema_for::<PodMetrics> },
];

impl JsonSchema for NodeMetrics {
    fn schema_name() -> Cow<'static, str> {
        format!("{PACKAGE}.NodeMetrics").into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let usage = usage(generator);
        measured("What a node uses.", "usage", &usage, generator)
    }
}

impl JsonSchema for PodMetrics {
    fn schema_name() -> Cow<'static, str> {
        format!("{PACKAGE}.PodMetrics").into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<ContainerMetrics>();
        let containers = json!({
            "description": "What each of its containers uses.", "type": "array", "items": item,
        });
        measured("What a pod uses.", "containers", &containers, generator)
    }
}

impl JsonSchema for ContainerMetrics {
    fn schema_name() -> Cow<'static, str> {
        format!("{PACKAGE}.ContainerMetrics").into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let usage = usage(generator);
        json_schema!({
            "description": "What a container uses.",
            "type": "object",
            "required": ["name", "usage"],
            "properties": {
                "name": { "description": "The container's name.", "type": "string" },
                "usage": usage,
            },
        })
    }
}

fn usage(generator: &mut SchemaGenerator) -> Value {
    let quantities = generator.subschema_for::<BTreeMap<String, Quantity>>();
    let mut usage = quantities.to_value();
    usage["description"] = "What was used, by resource: cpu, memory.".into();
    usage
}

/// An object that was measured, with a field of its own.
fn measured(about: &str, field: &str, own: &Value, generator: &mut SchemaGenerator) -> Schema {
    let metadata = generator.subschema_for::<ObjectMeta>();
    let time = generator.subschema_for::<Time>();
    let text = |about: &str| json!({ "description": about, "type": "string" });
    json_schema!({
        "description": about,
        "type": "object",
        "required": ["timestamp", "window", field],
        "properties": {
            "apiVersion": text("The version of the schema of this object."),
            "kind": text("What this object stands for."),
            "metadata": metadata,
            "timestamp": time,
            "window": text("The time over which it was measured, up to the timestamp."),
            field: own,
        },
    })
}
