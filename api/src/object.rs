//! [`Object`]: an API object as JSON, the form in which it travels between handlers, strategies and
//! the store.
//!
//! Keys are ordered (serde_json's map is a B-tree), so equal objects have equal bytes. Typed users
//! cross over with [`Object::from_typed`] and [`Object::to_typed`], value to value, without text.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::status::Status;

/// A reference from a dependent to its owner, as far as the machinery looks at it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerRef {
    /// The owner's group and version.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// The owner's uid.
    pub uid: String,
    /// Whether the owner is the one that manages the dependent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// Whether foreground deletion of the owner waits for the dependent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

/// An API object. The value within is always a JSON object.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct Object(Value);

impl Object {
    /// Takes a JSON value for an object; `None` when it is not one.
    pub fn new(value: Value) -> Option<Self> {
        value.is_object().then_some(Self(value))
    }

    /// An object of a kind without any content.
    pub fn empty(api_version: &str, kind: &str) -> Self {
        Self(serde_json::json!({ "apiVersion": api_version, "kind": kind, "metadata": {} }))
    }

    /// Reads what the store holds.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let map: Map<String, Value> = serde_json::from_slice(bytes)?;
        Ok(Self(Value::Object(map)))
    }

    /// The object of a typed value.
    pub fn from_typed<K: Serialize>(typed: &K) -> Result<Self, Status> {
        let value = serde_json::to_value(typed).map_err(|error| {
            Status::internal(format!("encoding {}: {error}", std::any::type_name::<K>()))
        })?;
        Self::new(value).ok_or_else(|| {
            Status::internal(format!("{} is not an object", std::any::type_name::<K>()))
        })
    }

    /// The typed value of this object.
    pub fn to_typed<K: DeserializeOwned>(&self) -> Result<K, Status> {
        K::deserialize(&self.0).map_err(|error| {
            Status::internal(format!("decoding {} {}: {error}", self.kind(), self.name()))
        })
    }

    /// The typed value, consuming this object: its strings are moved, not copied.
    pub fn into_typed<K: DeserializeOwned>(self) -> Result<K, Status> {
        let (kind, name) = (self.kind().to_owned(), self.name().to_owned());
        serde_json::from_value(self.0)
            .map_err(|error| Status::internal(format!("decoding {kind} {name}: {error}")))
    }

    /// Its JSON.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// Its JSON, to change. What is assigned through it must stay an object.
    pub fn value_mut(&mut self) -> &mut Value {
        &mut self.0
    }

    /// Its JSON, taken out.
    pub fn into_value(self) -> Value {
        self.0
    }

    /// Its JSON text.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).expect("a JSON value must have a text")
    }

    /// The value at a JSON pointer (`/spec/replicas`).
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer)
    }

    /// The text at a JSON pointer, empty where there is none.
    pub fn str_at(&self, pointer: &str) -> &str {
        self.at(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The integer at a JSON pointer.
    pub fn i64_at(&self, pointer: &str) -> Option<i64> {
        self.at(pointer).and_then(Value::as_i64)
    }

    /// The boolean at a JSON pointer, false where there is none.
    pub fn bool_at(&self, pointer: &str) -> bool {
        self.at(pointer).and_then(Value::as_bool).unwrap_or_default()
    }

    /// The value at a path of keys, created on the way (null at the end) where it is missing.
    pub fn entry(&mut self, path: &[&str]) -> &mut Value {
        let mut here = &mut self.0;
        for key in path {
            if !here.is_object() {
                *here = Value::Object(Map::new());
            }
            here = here
                .as_object_mut()
                .expect("made an object just above must be one")
                .entry(*key)
                .or_insert(Value::Null);
        }
        here
    }

    /// Sets the value at a path of keys.
    pub fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        *self.entry(path) = value.into();
    }

    /// Sets the value at a path of keys where there is none yet (or null): what defaulting does.
    pub fn set_default(&mut self, path: &[&str], value: impl Into<Value>) {
        let entry = self.entry(path);
        if entry.is_null() {
            *entry = value.into();
        }
    }

    /// Removes the value at a path of keys and returns it.
    pub fn remove(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        let mut here = &mut self.0;
        for key in parents {
            here = here.get_mut(*key)?;
        }
        here.as_object_mut()?.remove(*last)
    }

    /// `apiVersion`.
    pub fn api_version(&self) -> &str {
        self.str_at("/apiVersion")
    }

    /// `kind`.
    pub fn kind(&self) -> &str {
        self.str_at("/kind")
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.str_at("/metadata/name")
    }

    /// `metadata.namespace`, empty for what has none.
    pub fn namespace(&self) -> &str {
        self.str_at("/metadata/namespace")
    }

    /// `metadata.generateName`.
    pub fn generate_name(&self) -> &str {
        self.str_at("/metadata/generateName")
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.str_at("/metadata/uid")
    }

    /// `metadata.resourceVersion`; stored objects have none, it is added when they are read.
    pub fn resource_version(&self) -> &str {
        self.str_at("/metadata/resourceVersion")
    }

    /// `metadata.generation`, 0 where unset.
    pub fn generation(&self) -> i64 {
        self.i64_at("/metadata/generation").unwrap_or(0)
    }

    /// `metadata.creationTimestamp`.
    pub fn creation_timestamp(&self) -> Option<Timestamp> {
        self.str_at("/metadata/creationTimestamp").parse().ok()
    }

    /// `metadata.deletionTimestamp`: when it is to be gone.
    pub fn deletion_timestamp(&self) -> Option<Timestamp> {
        self.str_at("/metadata/deletionTimestamp").parse().ok()
    }

    /// Whether its deletion has begun.
    pub fn is_terminating(&self) -> bool {
        self.at("/metadata/deletionTimestamp").is_some_and(|value| !value.is_null())
    }

    /// `metadata.deletionGracePeriodSeconds`.
    pub fn deletion_grace_period_seconds(&self) -> Option<i64> {
        self.i64_at("/metadata/deletionGracePeriodSeconds")
    }

    /// `metadata.labels`.
    pub fn labels(&self) -> BTreeMap<&str, &str> {
        self.strings_at("/metadata/labels")
    }

    /// `metadata.annotations`.
    pub fn annotations(&self) -> BTreeMap<&str, &str> {
        self.strings_at("/metadata/annotations")
    }

    /// One label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.0.get("metadata")?.get("labels")?.get(key)?.as_str()
    }

    /// One annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.0.get("metadata")?.get("annotations")?.get(key)?.as_str()
    }

    /// `metadata.finalizers`.
    pub fn finalizers(&self) -> Vec<&str> {
        self.at("/metadata/finalizers")
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default()
    }

    /// Sets `metadata.finalizers`, removing the field when there are none.
    pub fn set_finalizers(&mut self, finalizers: &[String]) {
        if finalizers.is_empty() {
            self.remove(&["metadata", "finalizers"]);
        } else {
            self.set(&["metadata", "finalizers"], finalizers.to_vec());
        }
    }

    /// `metadata.ownerReferences`.
    pub fn owner_refs(&self) -> Vec<OwnerRef> {
        self.at("/metadata/ownerReferences")
            .and_then(|value| Vec::<OwnerRef>::deserialize(value).ok())
            .unwrap_or_default()
    }

    /// The owner that manages it.
    pub fn controller_ref(&self) -> Option<OwnerRef> {
        self.owner_refs().into_iter().find(|owner| owner.controller == Some(true))
    }

    /// Sets `apiVersion` and `kind`.
    pub fn set_type(&mut self, api_version: &str, kind: &str) {
        self.set(&["apiVersion"], api_version);
        self.set(&["kind"], kind);
    }

    /// Sets one field of `metadata`.
    pub fn set_meta(&mut self, field: &str, value: impl Into<Value>) {
        self.set(&["metadata", field], value);
    }

    fn strings_at(&self, pointer: &str) -> BTreeMap<&str, &str> {
        self.at(pointer)
            .and_then(Value::as_object)
            .map(|map| {
                map.iter()
                    .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
                    .collect()
            })
            .unwrap_or_default()
    }
}
