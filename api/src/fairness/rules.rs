//! Flow schemas and priority levels as they are stored, and which of them a request falls under.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderValue;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::turns::{LevelConfig, Response};
use crate::authn::{SERVICE_ACCOUNT_PREFIX, User};
use crate::object::Object;
use crate::request_info::{RequestInfo, ResourcePath};

/// Where a request goes that nothing else is about.
const CATCH_ALL: &str = "catch-all";
/// What stands for everything.
const ALL: &str = "*";

/// A flow schema.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) name: Arc<str>,
    pub(super) uid: Option<HeaderValue>,
    precedence: i64,
    level: Arc<str>,
    method: Method,
    rules: Vec<Rule>,
}

/// A priority level, as far as a request is told of it.
#[derive(Debug)]
pub(super) struct LevelName {
    pub(super) name: Arc<str>,
    pub(super) uid: Option<HeaderValue>,
}

/// What tells flows of one schema apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    None,
    User,
    Namespace,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaSpec {
    priority_level_configuration: Named,
    #[serde(default)]
    matching_precedence: i64,
    distinguisher_method: Option<Typed>,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Typed {
    r#type: String,
}

#[derive(Debug, Default, Deserialize)]
struct Named {
    #[serde(default)]
    namespace: String,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    subjects: Vec<Subject>,
    #[serde(default)]
    resource_rules: Vec<ResourceRule>,
    #[serde(default)]
    non_resource_rules: Vec<PathRule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subject {
    user: Option<Named>,
    group: Option<Named>,
    service_account: Option<Named>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceRule {
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    api_groups: Vec<String>,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    cluster_scope: bool,
    #[serde(default)]
    namespaces: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct PathRule {
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    urls: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LevelSpec {
    r#type: String,
    limited: Option<Limited>,
    exempt: Option<Limited>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Limited {
    nominal_concurrency_shares: i64,
    lendable_percent: i64,
    borrowing_limit_percent: Option<i64>,
    limit_response: Option<LimitResponse>,
}

#[derive(Debug, Deserialize)]
struct LimitResponse {
    queuing: Option<Queuing>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Queuing {
    queues: usize,
    hand_size: usize,
    queue_length_limit: usize,
}

/// All that is stored, in the order in which it is asked.
#[derive(Debug)]
pub(super) struct Rules {
    schemas: Vec<Schema>,
    levels: BTreeMap<Arc<str>, LevelName>,
    configs: Vec<LevelConfig>,
    /// For what nothing is about.
    otherwise: (Schema, LevelName),
}

impl Default for Rules {
    /// Before anything is stored: one level that has it all.
    fn default() -> Self {
        Self::of(&[], &[])
    }
}

impl Rules {
    /// A schema whose level is missing counts for nothing.
    pub(super) fn of(schemas: &[Arc<Object>], levels: &[Arc<Object>]) -> Self {
        let mut names = BTreeMap::new();
        let mut configs = Vec::new();
        for level in levels {
            let name: Arc<str> = level.name().into();
            let spec: LevelSpec = spec(level).unwrap_or_default();
            configs.push(config(Arc::clone(&name), &spec));
            names.insert(Arc::clone(&name), LevelName { name, uid: uid(level) });
        }
        let schemas = schemas.iter().filter_map(|schema| Schema::of(schema));
        let mut schemas: Vec<Schema> =
            schemas.filter(|schema| names.contains_key(&schema.level)).collect();
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        if !names.contains_key(CATCH_ALL) {
            configs.push(LevelConfig::whole(CATCH_ALL.into()));
        }
        let level = LevelName { name: CATCH_ALL.into(), uid: None };
        Self { schemas, levels: names, configs, otherwise: (Schema::catch_all(), level) }
    }

    /// The levels.
    pub(super) fn levels(&self) -> &[LevelConfig] {
        &self.configs
    }

    /// What a request falls under.
    pub(super) fn of_request(&self, info: &RequestInfo, user: &User) -> (&Schema, &LevelName) {
        let found = self.schemas.iter().find(|schema| schema.is_about(info, user));
        let found = found.and_then(|schema| Some((schema, self.levels.get(&schema.level)?)));
        found.unwrap_or((&self.otherwise.0, &self.otherwise.1))
    }
}

impl Schema {
    fn of(object: &Object) -> Option<Self> {
        let spec: SchemaSpec = spec(object)?;
        let method = spec.distinguisher_method.map(|method| method.r#type);
        Some(Self {
            name: object.name().into(),
            uid: uid(object),
            precedence: spec.matching_precedence,
            level: spec.priority_level_configuration.name.into(),
            method: match method.as_deref() {
                Some("ByUser") => Method::User,
                Some("ByNamespace") => Method::Namespace,
                _ => Method::None,
            },
            rules: spec.rules,
        })
    }

    fn catch_all() -> Self {
        Self {
            name: CATCH_ALL.into(),
            uid: None,
            precedence: i64::MAX,
            level: CATCH_ALL.into(),
            method: Method::User,
            rules: Vec::new(),
        }
    }

    /// What tells the flow of a request from others of this schema.
    pub(super) fn distinguisher<'a>(&self, info: &'a RequestInfo, user: &'a User) -> &'a str {
        match (self.method, info) {
            (Method::User, _) => &user.name,
            (Method::Namespace, RequestInfo::Resource(path)) => namespace(path),
            _ => "",
        }
    }

    fn is_about(&self, info: &RequestInfo, user: &User) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.subjects.iter().any(|subject| subject.is(user)) && rule.is_about(info))
    }
}

impl Subject {
    fn is(&self, user: &User) -> bool {
        if let Some(named) = &self.user {
            return named.name == ALL || named.name == user.name;
        }
        if let Some(group) = &self.group {
            return group.name == ALL || user.groups.contains(&group.name);
        }
        let Some(account) = &self.service_account else { return false };
        let own =
            user.name.strip_prefix(SERVICE_ACCOUNT_PREFIX).and_then(|own| own.split_once(':'));
        own.is_some_and(|(namespace, name)| {
            namespace == account.namespace && (account.name == ALL || account.name == name)
        })
    }
}

impl Rule {
    fn is_about(&self, info: &RequestInfo) -> bool {
        match info {
            RequestInfo::Resource(path) => {
                self.resource_rules.iter().any(|rule| rule.is_about(path))
            }
            RequestInfo::Path { method, path } => {
                let verb = method.as_str().to_ascii_lowercase();
                self.non_resource_rules.iter().any(|rule| {
                    has(&rule.verbs, &verb) && rule.urls.iter().any(|url| leads_to(url, path))
                })
            }
        }
    }
}

impl ResourceRule {
    fn is_about(&self, path: &ResourcePath) -> bool {
        let namespace = namespace(path);
        let is_there = if namespace.is_empty() {
            self.cluster_scope
        } else {
            has(&self.namespaces, namespace)
        };
        is_there
            && has(&self.verbs, path.verb.as_str())
            && has(&self.api_groups, &path.group)
            && self.resources.iter().any(|resource| names(resource, path))
    }
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|one| one == ALL || one == value)
}

fn names(resource: &str, path: &ResourcePath) -> bool {
    if resource == ALL {
        return true;
    }
    match resource.split_once('/') {
        Some((whole, part)) => whole == path.resource && part == path.subresource,
        None => resource == path.resource && path.subresource.is_empty(),
    }
}

fn leads_to(url: &str, path: &str) -> bool {
    match url.strip_suffix('*') {
        Some(start) => path.starts_with(start) || start.trim_end_matches('/') == path,
        None => url.trim_end_matches('/') == path,
    }
}

/// A namespace is in itself.
fn namespace(path: &ResourcePath) -> &str {
    let is_one = path.group.is_empty() && path.resource == "namespaces";
    if is_one && path.namespace.is_empty() { &path.name } else { &path.namespace }
}

fn config(name: Arc<str>, spec: &LevelSpec) -> LevelConfig {
    let none = Limited::default();
    let is_exempt = spec.r#type == "Exempt";
    let limited = if is_exempt { &spec.exempt } else { &spec.limited };
    let limited = limited.as_ref().unwrap_or(&none);
    let queuing = limited.limit_response.as_ref().and_then(|one| one.queuing.as_ref());
    let count = |number: i64| usize::try_from(number).unwrap_or(0);
    LevelConfig {
        name,
        shares: count(limited.nominal_concurrency_shares),
        lendable_percent: count(limited.lendable_percent),
        borrowing_percent: limited.borrowing_limit_percent.map(count),
        response: match queuing {
            _ if is_exempt => Response::Exempt,
            Some(Queuing { queues, hand_size, queue_length_limit }) => Response::Queue {
                queues: (*queues).max(1),
                hand: *hand_size,
                length: *queue_length_limit,
            },
            None => Response::Refuse,
        },
    }
}

fn spec<T: DeserializeOwned>(object: &Object) -> Option<T> {
    let spec = object.at("/spec").unwrap_or(&Value::Null);
    T::deserialize(spec)
        .inspect_err(|error| tracing::warn!(name = object.name(), %error, "flow control"))
        .ok()
}

fn uid(object: &Object) -> Option<HeaderValue> {
    HeaderValue::from_str(object.uid()).ok()
}
