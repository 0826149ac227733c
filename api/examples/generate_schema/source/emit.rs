//! Matches the two sides type by type and writes one line a field.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

use super::json;
use super::pb::{Field, Message, Messages};

/// Pointers to scalars in Go, where an explicit zero differs from nothing. Neither source says it.
const POINTERS: &str = include_str!("../pointers.txt");

/// Types whose JSON form is not that of their message.
const SPECIAL: &[(&str, &str)] = &[
    ("apimachinery.pkg.apis.meta.v1.Time", "Time"),
    ("apimachinery.pkg.apis.meta.v1.MicroTime", "MicroTime"),
    ("apimachinery.pkg.apis.meta.v1.FieldsV1", "FieldsV1"),
    ("apimachinery.pkg.api.resource.Quantity", "Quantity"),
    ("apimachinery.pkg.util.intstr.IntOrString", "IntOrString"),
    ("apimachinery.pkg.runtime.RawExtension", "RawExtension"),
    ("apiextensions_apiserver.pkg.apis.apiextensions.v1.JSON", "RawExtension"),
    ("apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray", "SchemaOrArray"),
    ("apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", "SchemaOrBool"),
    (
        "apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
        "SchemaOrStrings",
    ),
];

/// Fields that k8s-openapi has and no message has: all of `TypeMeta`, named as kinds instead.
const TYPE_META: [&str; 2] = ["apiVersion", "kind"];

struct Emitter<'a> {
    messages: BTreeMap<String, (&'a str, &'a Message)>,
    pointers: BTreeSet<&'a str>,
    types: BTreeMap<String, String>,
}

/// The whole text, types ordered by name.
pub(crate) fn emit(messages: &Messages, definitions: &BTreeMap<String, Value>) -> String {
    let mut emitter = Emitter {
        messages: messages
            .0
            .iter()
            .map(|(name, message)| (name.to_lowercase(), (name.as_str(), message)))
            .collect(),
        pointers: POINTERS.lines().filter(|l| !l.starts_with('#')).collect(),
        types: BTreeMap::new(),
    };
    for (name, schema) in definitions {
        let name = short(name);
        if special(&name).is_none() {
            let none = Properties::new();
            let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
            emitter.add_type(&name, schema, properties);
        }
    }
    let mut text = String::from("# Written by examples/generate_schema; do not edit.\n");
    text.extend(emitter.types.into_values());
    text
}

/// `io.k8s.api.core.v1.Pod` as `api.core.v1.Pod`, dashes as in Rust paths.
fn short(name: &str) -> String {
    name.trim_start_matches("io.k8s.").replace('-', "_")
}

fn special(short: &str) -> Option<&'static str> {
    SPECIAL.iter().find(|(name, _)| *name == short).map(|(_, shape)| *shape)
}

fn normal(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

type Properties = serde_json::Map<String, Value>;

impl<'a> Emitter<'a> {
    fn message(&self, name: &str) -> &'a Message {
        self.messages.get(&name.to_lowercase()).unwrap_or_else(|| panic!("no message {name}")).1
    }

    fn add_type(&mut self, name: &str, schema: &Value, properties: &Properties) {
        let message = self.message(name);
        let required: BTreeSet<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        // k8s-openapi requires `metadata` of every object; Kubernetes does not.
        let required: BTreeSet<&str> = required.into_iter().filter(|f| *f != "metadata").collect();
        let has_meta = TYPE_META.iter().all(|f| {
            properties.contains_key(*f)
                && !message.fields.iter().any(|field| normal(&field.name) == normal(f))
        });
        let mut left: BTreeMap<String, &str> = properties
            .keys()
            .filter(|k| !(has_meta && TYPE_META.contains(&k.as_str())))
            .map(|k| (normal(k), k.as_str()))
            .collect();
        let kind = has_meta.then(|| gvk(name));
        self.add_fields(name, kind.as_deref(), &mut left, properties, &required);
        assert!(left.is_empty(), "{name}: no message field for {left:?}");
        if has_meta {
            self.add_list(name);
        }
    }

    /// Writes one message, taking the properties it carries out of `left`.
    fn add_fields(
        &mut self,
        name: &str,
        kind: Option<&str>,
        left: &mut BTreeMap<String, &str>,
        properties: &Properties,
        required: &BTreeSet<&str>,
    ) {
        let message = self.message(name);
        let mut lines = BTreeMap::new();
        let mut inlines = Vec::new();
        for field in &message.fields {
            if let Some(json_name) = left.remove(&normal(&field.name)) {
                let line = self.line(name, field, json_name, &properties[json_name], required);
                lines.insert(json_name.to_owned(), line);
            } else if field.message.is_some() && !field.repeated && !field.map {
                inlines.push(field);
            }
        }
        for field in inlines {
            let inline = field.message.as_deref().expect("an inlined field is a message");
            let before = left.len();
            self.add_fields(inline, None, left, properties, required);
            if left.len() < before {
                lines.insert(format!("~{}", field.tag), format!("  ~ {} :{inline}\n", field.tag));
            } else if !self.types.contains_key(inline) || is_empty(&self.types[inline]) {
                self.types.remove(inline); // newer than the schemas: not served
            }
        }
        let mut text = format!("type {name}");
        if let Some(kind) = kind {
            write!(text, " kind={kind}").expect("a string takes all");
        }
        if message.markers.iter().any(|m| m == "structType=atomic") {
            text.push_str(" atomic");
        }
        text.push('\n');
        text.extend(lines.into_values());
        let known = self.types.entry(name.to_owned()).or_default();
        if known.len() < text.len() {
            *known = text;
        }
    }

    fn line(
        &self,
        owner: &str,
        field: &Field,
        json_name: &str,
        schema: &Value,
        required: &BTreeSet<&str>,
    ) -> String {
        let shape = self.shape(field, schema);
        let mut line = format!("  {json_name} {} {shape}", field.tag);
        if required.contains(json_name) {
            line.push_str(" required");
        }
        let type_name = owner.rsplit('.').next().unwrap_or(owner);
        if self.pointers.contains(format!("{type_name}.{json_name}").as_str()) {
            line.push_str(" pointer");
        }
        markers(&mut line, &field.markers);
        line.push('\n');
        line
    }

    fn shape(&self, field: &Field, schema: &Value) -> String {
        let prefix = if field.map {
            "{}"
        } else if field.repeated {
            "[]"
        } else {
            ""
        };
        let inner = match &field.message {
            None => field.wire.clone(),
            Some(message) => self.message_shape(message, schema),
        };
        format!("{prefix}{inner}")
    }

    fn message_shape(&self, message: &str, schema: &Value) -> String {
        let target = json::reference(schema)
            .or_else(|| json::reference(&schema["items"]))
            .or_else(|| json::reference(&schema["additionalProperties"]))
            .map(short);
        match target {
            Some(name) => match special(&name) {
                Some(shape) => shape.to_owned(),
                None => format!(":{name}"),
            },
            // A message that wraps a list (ExtraValue) is the bare list in JSON.
            None if self.message(message).fields.len() == 1
                && self.message(message).fields[0].name == "items" =>
            {
                "wrapped".to_owned()
            }
            None => match special(message) {
                Some(shape) => shape.to_owned(),
                None => panic!("{message} has no JSON type in {schema}"),
            },
        }
    }

    /// The list type of a kind, which k8s-openapi has as a generic only.
    fn add_list(&mut self, name: &str) {
        let list = format!("{name}List");
        if !self.messages.contains_key(&list.to_lowercase()) || self.types.contains_key(&list) {
            return;
        }
        let text = format!(
            "type {list} kind={}\n  items 2 []:{name} required\n  \
             metadata 1 :apimachinery.pkg.apis.meta.v1.ListMeta\n",
            gvk(&list)
        );
        self.types.insert(list, text);
    }
}

fn is_empty(text: &str) -> bool {
    text.lines().count() <= 1
}

/// Adds what the Go markers say of lists, maps and patches.
fn markers(line: &mut String, markers: &[String]) {
    let get = |key: &str| {
        let plain = markers.iter().filter_map(|m| m.strip_prefix(key)?.strip_prefix('='));
        let values: Vec<&str> = plain.collect();
        (!values.is_empty()).then(|| values.join(","))
    };
    let mut add = |text: String| {
        line.push(' ');
        line.push_str(&text);
    };
    match get("listType").or_else(|| get("k8s:listType")).as_deref() {
        Some("map") => {
            let keys = get("listMapKey").or_else(|| get("k8s:listMapKey")).unwrap_or_default();
            add(format!("list=map({keys})"));
        }
        Some(kind) => add(format!("list={kind}")),
        None => {}
    }
    if markers.iter().any(|m| m == "structType=atomic" || m == "mapType=atomic") {
        add("atomic".to_owned());
    }
    if let Some(strategy) = get("patchStrategy") {
        add(format!("patch={strategy}"));
    }
    if let Some(key) = get("patchMergeKey") {
        add(format!("key={key}"));
    }
}

/// `group/version/Kind` from a short type name; the core group is empty.
fn gvk(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let [.., group, version, kind] = parts.as_slice() else { panic!("{name} is no type") };
    let group = match *group {
        "core" | "meta" => "",
        "apps" | "autoscaling" | "batch" | "policy" => group,
        "flowcontrol" => "flowcontrol.apiserver.k8s.io",
        "rbac" => "rbac.authorization.k8s.io",
        other => return format!("{other}.k8s.io/{version}/{kind}"),
    };
    format!("{group}/{version}/{kind}")
}
