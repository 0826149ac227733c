//! [`Entries`]: `metadata.managedFields`, read and written.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Writer;
use super::set::Set;
use crate::object::Object;

/// The most managers of updates; the oldest beyond are put together.
const UPDATERS_MAX: usize = 10;

/// The manager under which they are.
const ANCIENT: &str = "ancient-changes";

/// The manager of a write that names none.
const UNKNOWN: &str = "unknown";

/// How a manager came to own its fields. Applied ones come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// The fields of one manager. The order of the fields is that of the entries in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) operation: Operation,
    /// Seconds since 1970.
    pub(super) time: Option<Timestamp>,
    pub(super) manager: String,
    pub(super) api_version: String,
    pub(super) subresource: String,
    pub(super) fields: Set,
}

impl Entry {
    /// An entry without fields for who writes.
    pub(super) fn of(writer: &Writer<'_>, operation: Operation) -> Self {
        let manager = if writer.manager.is_empty() { UNKNOWN } else { writer.manager };
        Self {
            operation,
            time: None,
            manager: manager.to_owned(),
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            fields: Set::default(),
        }
    }

    /// Whether both are of the same manager: an applier is the same in every version.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        (self.operation, &self.manager, &self.subresource)
            == (other.operation, &other.manager, &other.subresource)
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    fn parse(value: &Value) -> Option<Self> {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        if text("fieldsType") != "FieldsV1" {
            return None;
        }
        Some(Self {
            operation,
            time: text("time").parse().ok(),
            manager: text("manager").to_owned(),
            api_version: text("apiVersion").to_owned(),
            subresource: text("subresource").to_owned(),
            fields: Set::parse(value.get("fieldsV1").unwrap_or(&Value::Null))?,
        })
    }

    fn to_value(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager,
            "operation": match self.operation {
                Operation::Apply => "Apply",
                Operation::Update => "Update",
            },
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_value(),
        });
        if let Some(time) = self.time {
            entry["time"] = crate::registry::seconds(time).into();
        }
        if !self.subresource.is_empty() {
            entry["subresource"] = self.subresource.as_str().into();
        }
        entry
    }
}

/// All managers of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entries(pub(super) Vec<Entry>);

impl Entries {
    /// Those of an object; `None` where they cannot be read.
    pub(super) fn of(object: &Object) -> Option<Self> {
        match object.at("/metadata/managedFields") {
            None | Some(Value::Null) => Some(Self::default()),
            Some(Value::Array(list)) => {
                list.iter().map(Entry::parse).collect::<Option<_>>().map(Self)
            }
            Some(_) => None,
        }
    }

    /// Those that an update goes by: the ones it sends, so that they can be written directly, or the
    /// stored ones where it sends none that can be read. `[{}]` forgets them all.
    pub(super) fn of_update(new: &Object, live: &Object) -> Self {
        let sent = new.at("/metadata/managedFields").and_then(Value::as_array);
        if let Some([Value::Object(only)]) = sent.map(Vec::as_slice)
            && only.values().all(Value::is_null)
        {
            return Self::default();
        }
        match Self::of(new) {
            Some(sent) if !sent.0.is_empty() => sent,
            _ => Self::of(live).unwrap_or_default(),
        }
    }

    /// The entry of the same manager.
    pub(super) fn find(&mut self, entry: &Entry) -> Option<&mut Entry> {
        self.0.iter_mut().find(|own| own.is_of(entry))
    }

    /// Puts an entry in the place of the one of the same manager.
    pub(super) fn put(&mut self, entry: Entry) {
        match self.find(&entry) {
            Some(own) => *own = entry,
            None => self.0.push(entry),
        }
    }

    /// Puts the oldest updates of each version together while there are more than allowed.
    pub(super) fn cap(&mut self) {
        let is_update = |entry: &Entry| entry.operation == Operation::Update;
        let mut count = self.0.iter().filter(|entry| is_update(entry)).count();
        if count <= UPDATERS_MAX {
            return;
        }
        let (mut updates, applied): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.0).into_iter().partition(is_update);
        updates.sort_by_key(|entry| (entry.time, entry.manager.clone()));
        let mut kept: Vec<Entry> = Vec::new();
        for entry in updates {
            let older = kept.iter_mut().find(|kept| kept.api_version == entry.api_version);
            match older {
                Some(older) if count > UPDATERS_MAX => {
                    older.fields = std::mem::take(&mut older.fields).union(&entry.fields);
                    older.time = entry.time;
                    ANCIENT.clone_into(&mut older.manager);
                    older.subresource.clear();
                    count -= 1;
                }
                _ => match kept.iter_mut().find(|kept| kept.is_of(&entry)) {
                    Some(same) => {
                        same.fields = std::mem::take(&mut same.fields).union(&entry.fields);
                    }
                    None => kept.push(entry),
                },
            }
        }
        self.0 = applied;
        self.0.extend(kept);
    }

    /// Writes them into an object, in their order; entries without fields are dropped.
    pub(super) fn write(mut self, object: &mut Object) {
        self.0.retain(|entry| !entry.fields.is_empty());
        if self.0.is_empty() {
            object.remove(&["metadata", "managedFields"]);
            return;
        }
        self.0.sort_by(|a, b| {
            let key = |entry: &Entry| {
                let Entry { operation, time, manager, api_version, subresource, .. } = entry;
                (*operation, *time, manager.clone(), api_version.clone(), subresource.clone())
            };
            key(a).cmp(&key(b))
        });
        let list: Vec<Value> = self.0.iter().map(Entry::to_value).collect();
        object.set_meta("managedFields", list);
    }
}

/// Whether two objects differ at most in the times of their entries.
pub fn same_but_times(object: &Object, old: &Object) -> bool {
    fn without(object: &Object) -> (Map<String, Value>, Map<String, Value>, Vec<Value>) {
        let mut top = object.value().as_object().cloned().unwrap_or_default();
        let mut metadata = match top.remove("metadata") {
            Some(Value::Object(metadata)) => metadata,
            _ => Map::new(),
        };
        let mut entries = match metadata.remove("managedFields") {
            Some(Value::Array(entries)) => entries,
            _ => Vec::new(),
        };
        for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
            entry.remove("time");
        }
        (top, metadata, entries)
    }
    without(object) == without(old)
}
