//! Server-side apply: a manager sends all the fields it has an opinion on, and only those.

use serde_json::Value;
use thiserror::Error;

use super::compare::Comparison;
use super::entries::{Entries, Entry, Operation};
use super::merge::merge;
use super::owned::owned;
use super::place::Place;
use super::remove::remove;
use super::set::Set;
use super::update::NOT_OWNED;
use super::{Writer, migrate};
use crate::object::Object;
use crate::status::Status;

/// What becomes of fields that others own with another value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflicts {
    /// The apply is refused.
    Refuse,
    /// They are taken over.
    Force,
}

/// A field that somebody else owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who, as messages name it.
    pub manager: String,
    /// The field's path.
    pub path: String,
}

/// Why a configuration is not applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// It does not fit the request.
    #[error("{0}")]
    BadRequest(String),
    /// It is not of its type, or the stored managers cannot be read.
    #[error("{0}")]
    Untyped(String),
    /// Others own what it sets.
    #[error("{}", message(.0))]
    Conflicts(Vec<Conflict>),
}

impl From<ApplyError> for Status {
    fn from(error: ApplyError) -> Self {
        let text = error.to_string();
        match error {
            ApplyError::BadRequest(why) => Self::bad_request(why),
            ApplyError::Untyped(why) => Self::unclassified(why),
            ApplyError::Conflicts(conflicts) => {
                conflicts.into_iter().fold(Self::apply_conflict(text), |status, conflict| {
                    let message = format!("conflict with {}", conflict.manager);
                    status.with_cause("FieldManagerConflict", message, &conflict.path)
                })
            }
        }
    }
}

fn message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        let Conflict { manager, path } = only;
        return format!("Apply failed with 1 conflict: conflict with {manager}: {path}");
    }
    let mut lines: Vec<String> = Vec::new();
    let mut last = None;
    for conflict in conflicts {
        if last != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", conflict.manager));
            last = Some(&conflict.manager);
        }
        lines.push(format!("- {}", conflict.path));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// The object after a configuration that passed [`super::check`] is applied to `live` (an object
/// without content where it is created), with its `managedFields`. An apply that changes nothing
/// gives `live` itself, times included.
pub fn apply(
    place: Place,
    live: &Object,
    config: &Object,
    writer: &Writer<'_>,
    conflicts: Conflicts,
) -> Result<Object, ApplyError> {
    let is_kubectl = writer.manager == migrate::KUBECTL;
    let mut applied = match try_apply(place, live, config, writer, conflicts) {
        Err(Refused::Conflicts(found)) if is_kubectl => {
            let allowed = migrate::unchanged_since_client_side(live, place);
            let left = found.without(&allowed);
            if !left.0.is_empty() {
                return Err(ApplyError::Conflicts(left.list()));
            }
            try_apply(place, live, config, writer, Conflicts::Force)
        }
        other => other,
    }
    .map_err(|refused| match refused {
        Refused::Conflicts(found) => ApplyError::Conflicts(found.list()),
        Refused::Unreadable => ApplyError::Untyped(
            "failed to decode managed fields: the stored object's cannot be read".to_owned(),
        ),
    })?;
    if is_kubectl {
        migrate::keep_last_applied(&mut applied, config);
    }
    Ok(applied)
}

enum Refused {
    Conflicts(Found),
    Unreadable,
}

/// The fields in conflict, by their owners.
struct Found(Vec<(Entry, Set)>);

impl Found {
    fn without(self, allowed: &Set) -> Self {
        let left = self.0.into_iter().map(|(entry, set)| (entry, set.difference(allowed)));
        Self(left.filter(|(_, set)| !set.is_empty()).collect())
    }

    fn list(&self) -> Vec<Conflict> {
        let mut list: Vec<(String, &Set)> =
            self.0.iter().map(|(entry, set)| (describe(entry), set)).collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        let each = |(manager, set): (String, &Set)| {
            let one = move |path| Conflict { manager: manager.clone(), path };
            set.paths().into_iter().map(one).collect::<Vec<_>>()
        };
        list.into_iter().flat_map(each).collect()
    }
}

/// A manager as messages name it.
fn describe(entry: &Entry) -> String {
    let mut text = format!("{:?}", entry.manager);
    if !entry.subresource.is_empty() {
        text += &format!(" with subresource {:?}", entry.subresource);
    }
    if entry.operation == Operation::Update {
        text += &format!(" using {}", entry.api_version);
    }
    text
}

fn try_apply(
    place: Place,
    live: &Object,
    config: &Object,
    writer: &Writer<'_>,
    conflicts: Conflicts,
) -> Result<Object, Refused> {
    let mut entries = Entries::of(live).ok_or(Refused::Unreadable)?;
    let mut bare = live.clone();
    bare.remove(&["metadata", "managedFields"]);
    let mut own = Entry::of(writer, Operation::Apply);
    own.fields = owned(config.value(), place).without_fields(|field| writer.reset.covers(field));
    let last = entries.find(&own).map(|entry| (entry.fields.clone(), entry.time));
    entries.put(own.clone());
    let merged = merge(bare.value(), config.value(), place);
    let new = match &last {
        // Merged again, for an empty list or map that it applies and that went with its elements.
        Some((last, _)) => merge(&prune(merged, &entries, last, place), config.value(), place),
        None => merged,
    };
    let compared = Comparison::of(bare.value(), &new, place).without(writer.reset);
    take_over(&mut entries, &own, &compared, conflicts)?;
    let is_same = new == *bare.value();
    if let Some(entry) = entries.find(&own) {
        entry.fields = own.fields.difference(&NOT_OWNED);
        entry.time = match last {
            Some((_, time)) if is_same => time,
            _ => Some(writer.now),
        };
    }
    let mut object = if is_same { bare } else { Object::new(new).unwrap_or(bare) };
    entries.write(&mut object);
    Ok(object)
}

/// Takes what the apply changes from the others, or refuses.
fn take_over(
    entries: &mut Entries,
    own: &Entry,
    compared: &Comparison,
    conflicts: Conflicts,
) -> Result<(), Refused> {
    let set = compared.set();
    let others = |entry: &&Entry| !entry.is_of(own);
    let found: Vec<(Entry, Set)> = entries
        .0
        .iter()
        .filter(others)
        .map(|entry| (entry.clone(), entry.fields.intersection(&set)))
        .filter(|(_, set)| !set.is_empty())
        .collect();
    if conflicts == Conflicts::Refuse && !found.is_empty() {
        return Err(Refused::Conflicts(Found(found)));
    }
    for entry in entries.0.iter_mut().filter(|entry| !entry.is_of(own)) {
        entry.fields = entry.fields.difference(&set).difference(&compared.removed);
    }
    Ok(())
}

/// Removes what the manager applied last time and not this time, as far as nobody else owns it.
fn prune(merged: Value, entries: &Entries, last: &Set, place: Place) -> Value {
    let last = last.with_structs(place);
    let all = owned(&merged, place).with_structs(place);
    let empty = || Value::Object(serde_json::Map::new());
    let pruned = remove(&merged, &last, place).unwrap_or_else(empty);
    // What went with a removed struct or element and is owned by somebody stays.
    let managed = entries.0.iter().fold(Set::default(), |set, entry| set.union(&entry.fields));
    let kept = owned(&pruned, place).with_structs(place).union(&managed.with_structs(place));
    let pruned = remove(&merged, &all.difference(&kept), place).unwrap_or_else(empty);
    // What went with it and is owned by nobody stays too.
    let kept = owned(&pruned, place).with_structs(place);
    let gone = all.difference(&kept).intersection(&last);
    remove(&merged, &gone, place).unwrap_or_else(empty)
}
