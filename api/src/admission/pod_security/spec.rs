//! A pod as the checks look at it, and the words in which they speak.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::object::Object;

/// A pod, or the template of one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pod<'o> {
    pub(super) metadata: &'o Value,
    pub(super) spec: &'o Value,
}

impl<'o> Pod<'o> {
    pub(super) fn of_object(object: &'o Object) -> Self {
        Self::of_template(object.value())
    }

    pub(super) fn of_template(template: &'o Value) -> Self {
        Self { metadata: &template["metadata"], spec: &template["spec"] }
    }

    /// All its containers.
    pub(super) fn containers(self) -> impl Iterator<Item = &'o Value> {
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |list| list_of(&self.spec[list]))
    }

    /// The names of the containers that are so.
    pub(super) fn containers_that(self, is_so: impl Fn(&Value) -> bool) -> Vec<&'o str> {
        self.containers().filter(|container| is_so(container)).map(name_of).collect()
    }

    /// Its security context.
    pub(super) fn context(self) -> &'o Value {
        &self.spec["securityContext"]
    }

    pub(super) fn is_windows(self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    /// Whether its users are none of the node's.
    pub(super) fn has_own_users(self) -> bool {
        self.spec["hostUsers"] == false
    }
}

/// The elements of a list, none where there is none.
pub(super) fn list_of(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn name_of(value: &Value) -> &str {
    value["name"].as_str().unwrap_or_default()
}

/// The security context of a container.
pub(super) fn context_of(container: &Value) -> &Value {
    &container["securityContext"]
}

/// `"a", "b"`
pub(super) fn quoted<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> =
        names.into_iter().map(|name| format!("\"{}\"", name.as_ref())).collect();
    names.join(", ")
}

/// `container "a"`, `containers "a", "b"`
pub(super) fn containers_named(names: &[&str]) -> String {
    format!("{} {}", plural("container", names.len()), quoted(names))
}

/// A word for one, or for more.
pub(super) fn plural(word: &str, count: usize) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

/// `uses`, `use`
pub(super) fn uses(count: usize) -> &'static str {
    if count == 1 { "uses" } else { "use" }
}

/// Who sets a field to something bad: the pod, containers, or both.
pub(super) fn setters(is_pod: bool, containers: &[&str]) -> Option<String> {
    let pod = is_pod.then(|| "pod".to_owned());
    let named = (!containers.is_empty()).then(|| containers_named(containers));
    let all: Vec<String> = pod.into_iter().chain(named).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}

/// Texts in their order, each once.
pub(super) fn sorted<'t>(texts: impl IntoIterator<Item = &'t str>) -> Vec<&'t str> {
    texts.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}
