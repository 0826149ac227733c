//! [`Version`]: one version of a definition, the strategy of its objects.

use jiff::Timestamp;
use serde_json::Value;

use super::columns::Columns;
use super::convert::{Conversion, is_foreign};
use super::path::JsonPath;
use super::rules::Rules;
use super::structural::Structural;
use super::{default, prune, validate};
use crate::context::RequestContext;
use crate::fields::Reset;
use crate::object::Object;
use crate::registry::strategy::{Column, ScalePointers, Strategy, keep};
use crate::status::FieldError;

/// What a version of a definition says of its objects.
#[derive(Debug)]
pub struct Version {
    /// The name of the definition.
    pub definition: String,
    /// What objects call themselves.
    pub api_version: String,
    /// Their kind.
    pub kind: String,
    /// The kind of their lists.
    pub list_kind: String,
    /// What they call themselves in the store.
    pub stored_as: String,
    /// The schema.
    pub schema: Structural,
    /// The schema as it was written.
    pub source: Value,
    /// How objects of other versions become objects of this one, if not by name alone.
    pub(crate) conversion: Option<Conversion>,
    rules: Option<Rules>,
    columns: Columns,
    has_status: bool,
    scale: Option<ScalePointers>,
    selectable: &'static [&'static str],
}

/// A text that lives as long as the kinds do.
pub(super) fn leaked(text: &str) -> &'static str {
    text.to_owned().leak()
}

impl Version {
    /// The version of a definition that `version` is, an element of its `spec.versions`.
    pub(super) fn of(definition: &Object, version: &Value) -> Self {
        let text = |pointer| definition.str_at(pointer);
        let group = text("/spec/group");
        let name =
            |version: &Value| format!("{group}/{}", version["name"].as_str().unwrap_or_default());
        let versions = definition.at("/spec/versions").and_then(Value::as_array);
        let mut versions = versions.into_iter().flatten();
        let stored = versions.find(|version| version["storage"] == true);
        let source = version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_default();
        Self {
            definition: definition.name().to_owned(),
            api_version: name(version),
            kind: text("/status/acceptedNames/kind").to_owned(),
            list_kind: text("/status/acceptedNames/listKind").to_owned(),
            stored_as: name(stored.unwrap_or(version)),
            schema: Structural::of_version(&source),
            conversion: Conversion::of(definition),
            rules: Rules::of(&source),
            source,
            columns: Columns::of(version),
            has_status: version.pointer("/subresources/status").is_some(),
            scale: scale(version),
            selectable: selectable(version),
        }
    }

    /// What is wrong with an object, or with its change: rules are about objects of the schema.
    fn check(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let (value, old) = (object.value(), old.map(Object::value));
        let errors = validate::validate(value, old, &self.schema);
        match &self.rules {
            Some(rules) if errors.is_empty() => rules.validate(value, old),
            _ => errors,
        }
    }

    /// Whether objects have a scale.
    pub(super) fn has_scale(&self) -> bool {
        self.scale.is_some()
    }
}

fn scale(version: &Value) -> Option<ScalePointers> {
    let scale = version.pointer("/subresources/scale")?;
    let pointer = |field: &str| {
        let path = scale.get(field).and_then(Value::as_str).and_then(JsonPath::parse)?;
        Some(leaked(&path.pointer()?))
    };
    Some(ScalePointers {
        spec_replicas: pointer("specReplicasPath")?,
        status_replicas: pointer("statusReplicasPath")?,
        selector: pointer("labelSelectorPath").unwrap_or("/none"),
    })
}

fn selectable(version: &Value) -> &'static [&'static str] {
    let fields = version.get("selectableFields").and_then(Value::as_array).into_iter().flatten();
    let path = |field: &Value| Some(leaked(field["jsonPath"].as_str()?.trim_start_matches('.')));
    fields.filter_map(path).collect::<Vec<_>>().leak()
}

impl Strategy for Version {
    fn definition(&self) -> Option<&Version> {
        Some(self)
    }

    fn default(&self, object: &mut Object) {
        default::default(object.value_mut(), &self.schema);
    }

    fn present(&self, object: &mut Object) {
        if is_foreign(self, object) {
            return;
        }
        object.set_type(&self.api_version, &self.kind);
        prune::prune(object.value_mut(), &self.schema);
        self.default(object);
    }

    fn shows_as_stored(&self) -> bool {
        false
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, object: &mut Object) {
        if self.has_status {
            object.remove(&["status"]);
        }
        object.set_meta("generation", 1);
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, object: &mut Object, old: &Object) {
        if self.has_status {
            keep(object, old, "status");
        }
        let content = |object: &Object| {
            let mut content = object.value().clone();
            if let Some(map) = content.as_object_mut() {
                map.remove("metadata");
            }
            content
        };
        let grown = i64::from(content(object) != content(old));
        object.set_meta("generation", old.generation() + grown);
    }

    fn prepare_status_update(&self, _ctx: &RequestContext, object: &mut Object, old: &Object) {
        let mut kept = old.clone();
        keep(&mut kept, object, "status");
        *object = kept;
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        self.check(object, None)
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        self.check(object, Some(old))
    }

    fn validate_status_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        self.validate_update(object, old)
    }

    fn forgives_what_stays(&self) -> bool {
        true
    }

    fn has_status(&self) -> bool {
        self.has_status
    }

    fn reset_fields(&self, subresource: &str) -> Reset {
        match subresource {
            "status" => Reset::AllButStatus,
            "" if self.has_status => Reset::Status,
            _ => Reset::Nothing,
        }
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn selectable(&self) -> &'static [&'static str] {
        self.selectable
    }

    fn columns(&self) -> &'static [Column] {
        self.columns.headings
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        self.columns.row(object, now)
    }

    fn scale(&self) -> Option<ScalePointers> {
        self.scale
    }
}
