//! The kinds of a definition: one for each of its versions.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::LazyLock;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::names;
use super::version::{Version, leaked};
use crate::discovery;
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Kind, Scope, Subresource};
use crate::request_info::Verb;
use crate::resources::custom_resource_definition;

/// The kind of the definitions themselves.
pub(crate) const DEFINITIONS: &Kind = &custom_resource_definition::KIND;

/// What can still be done with objects whose definition is going.
const LAST_VERBS: &[Verb] =
    &[Verb::Delete, Verb::DeleteCollection, Verb::Get, Verb::List, Verb::Watch];

/// A version of a definition as a kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Versioned {
    pub(super) kind: &'static Kind,
    pub(super) is_served: bool,
    pub(super) is_storage: bool,
}

/// Kinds live for ever, so the same definition must not make them twice.
static MADE: LazyLock<Mutex<HashMap<String, &'static [Versioned]>>> = LazyLock::new(Mutex::default);

/// Whether a definition's objects are served.
fn is_established(definition: &Object) -> bool {
    names::is_true(definition, "Established")
}

/// The kinds of a definition; none while it is not established.
pub(super) fn kinds(definition: &Object) -> &'static [Versioned] {
    if !is_established(definition) {
        return &[];
    }
    let what_counts = json!([
        definition.name(),
        definition.at("/spec"),
        definition.at("/status/acceptedNames"),
        definition.is_terminating(),
    ]);
    let hash = discovery::hash(what_counts.to_string().as_bytes());
    let mut made = MADE.lock();
    made.entry(hash).or_insert_with(|| make(definition))
}

fn make(definition: &Object) -> &'static [Versioned] {
    let versions = definition.at("/spec/versions").and_then(Value::as_array);
    let versioned = |version: &Value| Versioned {
        kind: Box::leak(Box::new(kind(definition, version))),
        is_served: version["served"] == true,
        is_storage: version["storage"] == true,
    };
    versions.into_iter().flatten().map(versioned).collect::<Vec<_>>().leak()
}

fn kind(definition: &Object, version: &Value) -> Kind {
    let text = |pointer| leaked(definition.str_at(pointer));
    let list = |field: &str| -> &'static [&'static str] {
        let list = definition.at(&format!("/status/acceptedNames/{field}"));
        let list = list.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(leaked).collect::<Vec<_>>().leak()
    };
    let (group, plural) = (text("/spec/group"), text("/status/acceptedNames/plural"));
    let strategy: &'static Version = Box::leak(Box::new(Version::of(definition, version)));
    let mut subresources = Vec::new();
    if crate::registry::strategy::Strategy::has_status(strategy) {
        subresources.push(Subresource::STATUS);
    }
    if strategy.has_scale() {
        subresources.push(Subresource::SCALE);
    }
    Kind {
        group,
        version: leaked(version["name"].as_str().unwrap_or_default()),
        kind: text("/status/acceptedNames/kind"),
        plural,
        singular: text("/status/acceptedNames/singular"),
        short_names: list("shortNames"),
        categories: list("categories"),
        scope: match definition.str_at("/spec/scope") {
            "Namespaced" => Scope::Namespaced,
            _ => Scope::Cluster,
        },
        storage: leaked(&format!("{group}/{plural}")),
        subresources: subresources.leak(),
        verbs: if definition.is_terminating() { LAST_VERBS } else { ALL_VERBS },
        strategy,
    }
}

/// The order of custom kinds in discovery: by group, the most stable version first, by name.
pub(super) fn order(kind: &Kind) -> (&'static str, Reverse<Stability>, &'static str, &'static str) {
    (kind.group, Reverse(stability(kind.version)), kind.version, kind.plural)
}

/// How much a version is to be preferred: `v2` before `v1` before `v1beta1` before `v1alpha1`, and
/// all of these before names of another form.
pub(crate) type Stability = (u8, u64, u64);

pub(crate) fn stability(version: &str) -> Stability {
    let read = || {
        let rest = version.strip_prefix('v')?;
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let major = rest[..end].parse().ok()?;
        let (class, minor) = match &rest[end..] {
            "" => return Some((3, major, 0)),
            other => match other.strip_prefix("beta") {
                Some(minor) => (2, minor),
                None => (1, other.strip_prefix("alpha")?),
            },
        };
        Some((class, major, minor.parse().ok()?))
    };
    read().unwrap_or((0, 0, 0))
}
