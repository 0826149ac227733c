//! The schemas of a document: k8s-openapi's, with what Kubernetes adds to them.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::roots::{ROOTS, Root};
use super::{Style, custom, measured};
use crate::discovery::subresource_kind;
use crate::registry::strategy::Kind;
use crate::schema::{Field, Gvk, ListType, PatchStrategy, Type};

type Schemas = Map<String, Value>;

/// A type from whose description that of `apiVersion` and `kind` is taken.
const TYPED: Gvk<'static> = Gvk::new("", "v1", "ConfigMap");

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The schemas of all that these kinds mention, by name.
pub(super) fn schemas(kinds: &[&Kind], style: Style) -> Schemas {
    let mut generator = generator(style);
    let mut lists = Vec::new();
    if !describe(TYPED, &mut generator) {
        return Schemas::new();
    }
    for kind in kinds {
        let own = Gvk::new(kind.group, kind.version, kind.kind);
        if describe(own, &mut generator) {
            lists.push(own);
        }
        for sub in kind.subresources {
            let (group, version, name) = subresource_kind(kind, sub);
            describe(Gvk::new(group, version, name), &mut generator);
        }
    }
    describe_meta(&mut generator);
    let mut schemas: Schemas = generator.take_definitions(false).into_iter().collect();
    let typed = typed(kinds, &mut schemas);
    for gvk in lists {
        add_list(gvk, style, &mut schemas);
    }
    let groups = groups(kinds);
    for (name, schema) in &mut schemas {
        annotate(name, schema, style, &groups);
    }
    for kind in kinds {
        if let Some(version) = kind.strategy.definition() {
            schemas.extend(custom::schemas(kind, version, &typed, style));
        }
    }
    schemas
}

/// What `apiVersion` and `kind` are, as a built-in type describes them, which then goes where none of
/// the kinds is of it.
fn typed(kinds: &[&Kind], schemas: &mut Schemas) -> Schemas {
    let Some(name) = name_of(TYPED) else { return Schemas::new() };
    let all = schemas.get(&name).and_then(|schema| schema["properties"].as_object());
    let is_typed = |(field, _): &(&String, &Value)| matches!(field.as_str(), "apiVersion" | "kind");
    let typed = all.into_iter().flatten().filter(is_typed);
    let typed = typed.map(|(field, schema)| (field.clone(), schema.clone())).collect();
    if !kinds.iter().any(|kind| (kind.group, kind.kind) == (TYPED.group, TYPED.kind)) {
        schemas.remove(&name);
    }
    typed
}

/// The OpenAPI name of a kind's type.
pub(super) fn name_of(gvk: Gvk<'_>) -> Option<String> {
    Type::of_kind(gvk).map(Type::openapi_name)
}

/// The OpenAPI name of a type of meta/v1.
pub(super) fn meta_name(kind: &str) -> String {
    format!("{META}.{kind}")
}

fn generator(style: Style) -> SchemaGenerator {
    let path = match style {
        Style::V2 => "/definitions",
        Style::V3 => "/components/schemas",
    };
    SchemaSettings::openapi3()
        .with(|settings| settings.definitions_path = path.into())
        .into_generator()
}

fn describe(gvk: Gvk<'_>, generator: &mut SchemaGenerator) -> bool {
    let Some(name) = name_of(gvk) else { return false };
    let root: Option<&Root> =
        ROOTS.iter().chain(&measured::ROOTS).find(|root| (root.name)() == name);
    if let Some(root) = root {
        (root.describe)(generator);
    }
    root.is_some()
}

fn describe_meta(generator: &mut SchemaGenerator) {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
    generator.subschema_for::<meta::ListMeta>();
    generator.subschema_for::<meta::DeleteOptions>();
    generator.subschema_for::<meta::Status>();
    generator.subschema_for::<meta::Patch>();
    generator.subschema_for::<meta::APIResourceList>();
}

/// The list type of a kind, which k8s-openapi has as a generic only.
fn add_list(gvk: Gvk<'_>, style: Style, schemas: &mut Schemas) {
    let list = format!("{}List", gvk.kind);
    let Some(item) = name_of(gvk) else { return };
    let Some(name) = name_of(Gvk { kind: &list, ..gvk }) else { return };
    let of_item = |field: &str| schemas[&item]["properties"][field].clone();
    let mut metadata = style.reference(&meta_name("ListMeta"));
    metadata["description"] = "Standard list metadata. More info: \
        https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md\
        #types-kinds"
        .into();
    let schema = json!({
        "description": format!("{list} is a list of {}.", gvk.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": of_item("apiVersion"),
            "kind": of_item("kind"),
            "metadata": metadata,
            "items": {
                "description": format!("The {} objects of the list.", gvk.kind),
                "type": "array",
                "items": style.reference(&item),
            },
        },
    });
    schemas.insert(name, schema);
}

/// The groups whose version of `DeleteOptions` clients may send.
fn groups<'a>(kinds: &[&'a Kind]) -> Vec<(&'a str, &'a str)> {
    let mut groups = vec![("", "v1")];
    for kind in kinds {
        if !groups.contains(&(kind.group, kind.version)) {
            groups.push((kind.group, kind.version));
        }
    }
    groups
}

fn annotate(name: &str, schema: &mut Value, style: Style, groups: &[(&str, &str)]) {
    let short = name.trim_start_matches("io.k8s.").replace('-', "_");
    let Some(map) = schema.as_object_mut() else { return };
    if map.remove("x-kubernetes-int-or-string").is_some() {
        int_or_string(&short, map, style);
    }
    let known = Type::named(&short);
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        for (property, schema) in properties {
            annotate_property(schema, known.and_then(|known| known.field(property)), style);
        }
    }
    let Some(known) = known else { return };
    if known.atomic {
        map.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    if known.go_name() == "DeleteOptions" || known.go_name() == "Status" {
        let all: Vec<Value> = groups
            .iter()
            .map(|(g, v)| group_version_kind(Gvk::new(g, v, known.go_name())))
            .collect();
        map.insert("x-kubernetes-group-version-kind".to_owned(), all.into());
    } else if let Some(gvk) = known.kind {
        let gvk = json!([group_version_kind(gvk)]);
        map.insert("x-kubernetes-group-version-kind".to_owned(), gvk);
        if let Some(Value::Array(required)) = map.get_mut("required") {
            // k8s-openapi requires it of every object; Kubernetes does not.
            required.retain(|field| field != "metadata");
        }
    }
    if map.get("required").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        map.remove("required");
    }
}

/// `x-kubernetes-group-version-kind` of one kind.
pub(super) fn group_version_kind(gvk: Gvk<'_>) -> Value {
    json!({ "group": gvk.group, "version": gvk.version, "kind": gvk.kind })
}

fn int_or_string(short: &str, map: &mut Map<String, Value>, style: Style) {
    let number = if short.ends_with("Quantity") { "number" } else { "integer" };
    if number == "integer" {
        map.insert("format".to_owned(), "int-or-string".into());
    }
    match style {
        Style::V2 => map.insert("type".to_owned(), "string".into()),
        Style::V3 => {
            map.insert("oneOf".to_owned(), json!([{ "type": "string" }, { "type": number }]))
        }
    };
}

fn annotate_property(schema: &mut Value, field: Option<&Field>, style: Style) {
    let Some(map) = schema.as_object_mut() else { return };
    if let Some(field) = field {
        extend(map, field);
    }
    // In OpenAPI 3.0 nothing may stand beside a reference.
    if style == Style::V3
        && map.len() > 1
        && let Some(reference) = map.remove("$ref")
    {
        map.insert("allOf".to_owned(), json!([{ "$ref": reference }]));
    }
}

fn extend(map: &mut Map<String, Value>, field: &Field) {
    let mut add = |key: &str, value: Value| map.insert(format!("x-kubernetes-{key}"), value);
    match field.list {
        ListType::Unset => {}
        ListType::Atomic => drop(add("list-type", "atomic".into())),
        ListType::Set => drop(add("list-type", "set".into())),
        ListType::Map(keys) => {
            add("list-type", "map".into());
            add("list-map-keys", json!(keys));
        }
    }
    if field.atomic {
        add("map-type", "atomic".into());
    }
    let strategy = match field.patch {
        PatchStrategy { merge: true, retain_keys: true } => "merge,retainKeys",
        PatchStrategy { merge: true, .. } => "merge",
        PatchStrategy { retain_keys: true, .. } => "retainKeys",
        PatchStrategy { .. } => return,
    };
    add("patch-strategy", strategy.into());
    if let Some(key) = field.merge_key {
        add("patch-merge-key", key.into());
    }
}
