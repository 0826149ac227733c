//! The paths of a document: what can be done, and with which parameters. kubectl looks here for
//! `fieldValidation` on a kind's PATCH before it leaves validation to the server.

use serde_json::{Map, Value, json};

use super::schemas::{group_version_kind, meta_name, name_of};
use super::{Style, custom};
use crate::discovery::subresource_kind;
use crate::registry::strategy::{Kind, Subresource};
use crate::request_info::Verb;
use crate::schema::Gvk;

/// A query parameter: name, type, what it does.
type Parameter = (&'static str, &'static str, &'static str);

const LIST: &[Parameter] = &[
    ("labelSelector", "string", "Restricts the objects by their labels."),
    ("fieldSelector", "string", "Restricts the objects by their fields."),
    ("limit", "integer", "The most objects of one answer; the rest follows with continue."),
    ("continue", "string", "Goes on with a list where an answer ended."),
    ("resourceVersion", "string", "The version that the answer must have or be newer than."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    ("timeoutSeconds", "integer", "How long a list or a watch may take."),
    ("watch", "boolean", "Streams changes instead of listing."),
    ("allowWatchBookmarks", "boolean", "Lets a watch send bookmarks."),
    ("sendInitialEvents", "boolean", "Begins a watch with the state, as events."),
];
const WRITE: &[Parameter] = &[
    ("dryRun", "string", "All: everything is done but the change kept."),
    ("fieldManager", "string", "The name of who makes the change."),
    (
        "fieldValidation",
        "string",
        "What happens to unknown and duplicate fields: Ignore drops them, Warn (the default) drops \
         them and warns, Strict refuses the request.",
    ),
];
const FORCE: Parameter =
    ("force", "boolean", "Takes fields over from other managers (apply only).");
const DELETE: &[Parameter] = &[
    ("dryRun", "string", "All: everything is done but the change kept."),
    ("gracePeriodSeconds", "integer", "How long the object may take to end."),
    ("orphanDependents", "boolean", "Deprecated: propagationPolicy says it."),
    ("propagationPolicy", "string", "Orphan, Background or Foreground."),
];
const PATCHES: [&str; 4] = crate::patch::MEDIA_TYPES;
const CUSTOM_PATCHES: [&str; 3] = crate::patch::CUSTOM_MEDIA_TYPES;

/// `/api/VERSION` or `/apis/GROUP/VERSION`.
pub(super) fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// Every path of these kinds.
pub(super) fn paths(kinds: &[&Kind], style: Style) -> Map<String, Value> {
    let mut paths = Map::new();
    for kind in kinds {
        let prefix = prefix(kind.group, kind.version);
        let mut collection = format!("{prefix}/{}", kind.plural);
        if kind.is_namespaced() {
            let all = Place { kind, sub: None, scope: "ForAllNamespaces", style };
            let item = all.item(&[Verb::List], &[]);
            insert(&mut paths, collection, item);
            collection = format!("{prefix}/namespaces/{{namespace}}/{}", kind.plural);
        }
        let place = Place { kind, sub: None, scope: "", style };
        let verbs = [Verb::List, Verb::Create, Verb::DeleteCollection];
        let namespace: &[&str] = if kind.is_namespaced() { &["namespace"] } else { &[] };
        insert(&mut paths, collection.clone(), place.item(&verbs, namespace));
        let verbs = [Verb::Get, Verb::Update, Verb::Patch, Verb::Delete];
        let named: Vec<&str> = ["name"].iter().chain(namespace).copied().collect();
        insert(&mut paths, format!("{collection}/{{name}}"), place.item(&verbs, &named));
        for sub in kind.subresources {
            let place = Place { sub: Some(sub), ..place };
            let verbs = [Verb::Get, Verb::Create, Verb::Update, Verb::Patch, Verb::Delete];
            let path = format!("{collection}/{{name}}/{}", sub.name);
            insert(&mut paths, path, place.item(&verbs, &named));
        }
    }
    paths
}

fn insert(paths: &mut Map<String, Value>, path: String, item: Option<Value>) {
    if let Some(item) = item {
        paths.insert(path, item);
    }
}

/// A resource or a part of one, as a path has it.
#[derive(Clone, Copy)]
struct Place<'a> {
    kind: &'a Kind,
    sub: Option<&'a Subresource>,
    scope: &'static str,
    style: Style,
}

impl Place<'_> {
    fn gvk(&self) -> Gvk<'static> {
        match self.sub {
            None => Gvk::new(self.kind.group, self.kind.version, self.kind.kind),
            Some(sub) => {
                let (group, version, kind) = subresource_kind(self.kind, sub);
                Gvk::new(group, version, kind)
            }
        }
    }

    /// The OpenAPI name of what is here, or of its list.
    fn type_name(&self, end: &str) -> Option<String> {
        let gvk = self.gvk();
        if let Some(version) = self.kind.strategy.definition()
            && gvk.group == self.kind.group
        {
            let list = version.list_kind.as_str();
            return Some(custom::name(self.kind, if end.is_empty() { gvk.kind } else { list }));
        }
        name_of(Gvk { kind: &format!("{}{end}", gvk.kind), ..gvk })
    }

    /// The path item with those of `verbs` that there are; nothing without any.
    fn item(&self, verbs: &[Verb], path_parameters: &[&str]) -> Option<Value> {
        let mut item = Map::new();
        let has = self.sub.map_or(self.kind.verbs, |sub| sub.verbs);
        for verb in verbs.iter().copied().filter(|verb| has.contains(verb)) {
            item.insert(method(verb).to_owned(), self.operation(verb));
        }
        if item.is_empty() {
            return None;
        }
        let parameters: Vec<Value> =
            path_parameters.iter().map(|name| self.path_parameter(name)).collect();
        if !parameters.is_empty() {
            item.insert("parameters".to_owned(), parameters.into());
        }
        Some(Value::Object(item))
    }

    fn operation(&self, verb: Verb) -> Value {
        let gvk = self.gvk();
        let mut query: Vec<Parameter> = match verb {
            Verb::List => LIST.to_vec(),
            Verb::Create | Verb::Update | Verb::Patch => WRITE.to_vec(),
            Verb::Delete => DELETE.to_vec(),
            Verb::DeleteCollection => [DELETE, &LIST[..4]].concat(),
            Verb::Get | Verb::Watch => Vec::new(),
        };
        if verb == Verb::Patch {
            query.push(FORCE);
        }
        query.dedup_by_key(|parameter| parameter.0);
        let mut parameters: Vec<Value> =
            query.into_iter().map(|parameter| self.query_parameter(parameter)).collect();
        let mut operation = json!({
            "tags": [format!("{}_{}", group_word(self.kind.group), self.kind.version)],
            "description": self.description(verb),
            "operationId": self.operation_id(verb),
            "x-kubernetes-action": action(verb),
            "x-kubernetes-group-version-kind": group_version_kind(gvk),
        });
        if let Some(schema) = self.body(verb) {
            self.put_body(verb, &schema, &mut operation, &mut parameters);
        }
        operation["responses"] = self.responses(verb);
        operation["parameters"] = parameters.into();
        if self.style == Style::V2 {
            operation["produces"] = json!(["application/json", "application/yaml"]);
        }
        operation
    }

    fn put_body(
        &self,
        verb: Verb,
        schema: &Value,
        operation: &mut Value,
        parameters: &mut Vec<Value>,
    ) {
        // kubectl sends a strategic merge patch where it is among these.
        let media: &[&str] = match verb {
            Verb::Patch if self.kind.strategy.definition().is_some() => &CUSTOM_PATCHES,
            Verb::Patch => &PATCHES,
            _ => &["*/*"],
        };
        let required = matches!(verb, Verb::Create | Verb::Update | Verb::Patch);
        match self.style {
            Style::V2 => {
                operation["consumes"] = json!(media);
                parameters.push(json!({
                    "name": "body", "in": "body", "required": required, "schema": schema,
                }));
            }
            Style::V3 => {
                let content: Map<String, Value> = media
                    .iter()
                    .map(|media| ((*media).to_owned(), json!({ "schema": schema })))
                    .collect();
                operation["requestBody"] = json!({ "required": required, "content": content });
            }
        }
    }

    fn body(&self, verb: Verb) -> Option<Value> {
        if self.sub.is_some_and(Subresource::is_streamed) {
            return None;
        }
        let name = match verb {
            Verb::Create | Verb::Update => self.type_name("")?,
            Verb::Patch => meta_name("Patch"),
            Verb::Delete | Verb::DeleteCollection => meta_name("DeleteOptions"),
            Verb::Get | Verb::List | Verb::Watch => return None,
        };
        Some(self.style.reference(&name))
    }

    fn responses(&self, verb: Verb) -> Value {
        let name = match verb {
            Verb::List => self.type_name("List"),
            Verb::Delete | Verb::DeleteCollection => Some(meta_name("Status")),
            _ => self.type_name(""),
        };
        let schema = match (self.sub, name) {
            (Some(sub), _) if sub.name == "log" || sub.is_streamed() => json!({ "type": "string" }),
            (_, Some(name)) => self.style.reference(&name),
            (_, None) => json!({ "type": "object" }),
        };
        let ok = match self.style {
            Style::V2 => json!({ "description": "OK", "schema": schema }),
            Style::V3 => {
                json!({ "description": "OK", "content": { "application/json": { "schema": schema } } })
            }
        };
        let code = if verb == Verb::Create { "201" } else { "200" };
        json!({ code: ok, "401": { "description": "Unauthorized" } })
    }

    fn query_parameter(&self, (name, kind, description): Parameter) -> Value {
        let mut parameter = json!({ "name": name, "in": "query", "description": description });
        match self.style {
            Style::V2 => parameter["type"] = kind.into(),
            Style::V3 => parameter["schema"] = json!({ "type": kind, "uniqueItems": true }),
        }
        parameter
    }

    fn path_parameter(&self, name: &str) -> Value {
        let description = match name {
            "name" => format!("name of the {}", self.kind.kind),
            _ => "object name and auth scope, such as for teams and projects".to_owned(),
        };
        let mut parameter =
            json!({ "name": name, "in": "path", "required": true, "description": description });
        match self.style {
            Style::V2 => parameter["type"] = "string".into(),
            Style::V3 => parameter["schema"] = json!({ "type": "string", "uniqueItems": true }),
        }
        parameter
    }

    fn description(&self, verb: Verb) -> String {
        let kind = self.kind.kind;
        let what =
            self.sub.map_or(kind.to_owned(), |sub| format!("{} of the specified {kind}", sub.name));
        match verb {
            Verb::Create => format!("create {what}"),
            Verb::Get => format!("read {what}"),
            Verb::List | Verb::Watch => format!("list or watch objects of kind {kind}"),
            Verb::Update => format!("replace {what}"),
            Verb::Patch => format!("partially update {what}"),
            Verb::Delete => format!("delete {what}"),
            Verb::DeleteCollection => format!("delete collection of {kind}"),
        }
    }

    fn operation_id(&self, verb: Verb) -> String {
        let verb = match verb {
            Verb::Create => "create",
            Verb::Get => "read",
            Verb::List | Verb::Watch => "list",
            Verb::Update => "replace",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deleteCollection",
        };
        let namespaced = self.kind.is_namespaced() && self.scope.is_empty();
        format!(
            "{verb}{}{}{}{}{}{}",
            capitalized(&group_word(self.kind.group)),
            capitalized(self.kind.version),
            if namespaced { "Namespaced" } else { "" },
            self.kind.kind,
            self.sub.map(|sub| capitalized(sub.name)).unwrap_or_default(),
            self.scope
        )
    }
}

fn method(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "post",
        Verb::Get | Verb::List | Verb::Watch => "get",
        Verb::Update => "put",
        Verb::Patch => "patch",
        Verb::Delete | Verb::DeleteCollection => "delete",
    }
}

fn action(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "post",
        Verb::Update => "put",
        other => other.as_str(),
    }
}

/// `rbac.authorization.k8s.io` as `rbacAuthorization`.
fn group_word(group: &str) -> String {
    if group.is_empty() {
        return "core".to_owned();
    }
    let mut parts = group.trim_end_matches(".k8s.io").split('.');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |word, part| word + &capitalized(part))
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
