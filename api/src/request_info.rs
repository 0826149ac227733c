//! What a request asks for, read from its method, path and query before anything is decoded.

use std::fmt;

use http::Method;

use crate::authz::{Attributes, ResourceAttributes};
use crate::query::Query;
use crate::selectors::{FieldSelector, LabelSelector, Requirement};

/// What is done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the verbs are Kubernetes' own")]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    /// As discovery and authorization write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }

    /// Whether it changes nothing.
    pub fn is_read_only(self) -> bool {
        matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The resource that a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourcePath {
    /// What is done.
    pub verb: Verb,
    /// The group; empty for the core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The resource, in the plural.
    pub resource: String,
    /// The part of it, or empty.
    pub subresource: String,
    /// The namespace, or empty.
    pub namespace: String,
    /// The object, or empty.
    pub name: String,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestInfo {
    /// A resource.
    Resource(ResourcePath),
    /// Something else.
    Path {
        /// The HTTP method.
        method: Method,
        /// The path, without a slash at its end.
        path: String,
    },
}

impl RequestInfo {
    /// Reads a request's method, path (percent-decoded per segment) and query.
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let other = || Self::Path { method: method.clone(), path: trimmed(path).to_owned() };
        let segments: Vec<String> =
            path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
        let (group, version, rest) = match segments.as_slice() {
            [api, version, rest @ ..] if api == "api" => ("", version, rest),
            [apis, group, version, rest @ ..] if apis == "apis" => (group.as_str(), version, rest),
            _ => return other(),
        };
        let Some((namespace, resource, name, subresource)) = address(rest) else { return other() };
        let Some(verb) = verb(method, name, subresource, query) else { return other() };
        Self::Resource(ResourcePath {
            verb,
            group: group.to_owned(),
            version: version.clone(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// What the authorizer is asked. A selection of one object by its name counts as naming it.
    pub fn attributes(&self, query: &Query) -> Attributes {
        match self {
            Self::Resource(path) => {
                let selected = selected(path, query);
                let by_name = selected.iter().find(|(field, _)| field == "metadata.name");
                let name = match by_name {
                    Some((_, name)) if path.name.is_empty() => name.clone(),
                    _ => path.name.clone(),
                };
                Attributes::Resource(ResourceAttributes {
                    verb: path.verb.as_str().into(),
                    group: path.group.clone(),
                    version: path.version.clone(),
                    resource: path.resource.clone(),
                    subresource: path.subresource.clone(),
                    namespace: path.namespace.clone(),
                    name,
                    selected,
                    labels: labels(path, query),
                })
            }
            Self::Path { method, path } => {
                Attributes::Path { verb: method.as_str().to_ascii_lowercase(), path: path.clone() }
            }
        }
    }

    /// Whether the answer goes on for as long as the client likes.
    pub fn is_long_running(&self) -> bool {
        match self {
            Self::Resource(path) => {
                let streams = ["attach", "exec", "log", "portforward", "proxy"];
                path.verb == Verb::Watch || streams.contains(&path.subresource.as_str())
            }
            // The agents' question waits until there is news, and bounds that itself.
            Self::Path { path, .. } => path == "/kontiki/v1/network",
        }
    }

    /// Whether it changes nothing.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Resource(path) => path.verb.is_read_only(),
            Self::Path { method, .. } => method.is_safe(),
        }
    }
}

/// What the field selector of a request for many objects says must be equal. One that cannot be read
/// is refused later, and gives nobody anything here.
fn selected(path: &ResourcePath, query: &Query) -> Vec<(String, String)> {
    let text = query.get("fieldSelector");
    if !is_of_many(path) || text.is_empty() {
        return Vec::new();
    }
    let selector = FieldSelector::parse(text).unwrap_or_default();
    let fields = selector.paths().filter_map(|field| Some((field, selector.required(field)?)));
    fields.map(|(field, value)| (field.to_owned(), value.to_owned())).collect()
}

/// The same of its label selector.
fn labels(path: &ResourcePath, query: &Query) -> Vec<Requirement> {
    let text = query.get("labelSelector");
    if !is_of_many(path) || text.is_empty() {
        return Vec::new();
    }
    LabelSelector::parse(text).unwrap_or_default().requirements().to_vec()
}

fn is_of_many(path: &ResourcePath) -> bool {
    matches!(path.verb, Verb::List | Verb::Watch | Verb::DeleteCollection)
}

/// Namespace, resource, name and subresource of the path behind the version.
fn address(rest: &[String]) -> Option<(&str, &str, &str, &str)> {
    let part = |index: usize| rest.get(index).map_or("", String::as_str);
    let is_of_namespace = |name: &str| matches!(name, "status" | "finalize");
    if part(0) == "namespaces" && rest.len() >= 3 && !is_of_namespace(part(2)) {
        let fits = rest.len() <= 5 || part(4) == "proxy";
        return fits.then(|| (part(1), part(2), part(3), part(4)));
    }
    let fits = rest.len() <= 3 || part(2) == "proxy";
    (!rest.is_empty() && fits).then(|| ("", part(0), part(1), part(2)))
}

fn verb(method: &Method, name: &str, subresource: &str, query: &Query) -> Option<Verb> {
    Some(match *method {
        Method::GET | Method::HEAD if subresource.is_empty() && query.is_true("watch") => {
            Verb::Watch
        }
        Method::GET | Method::HEAD if name.is_empty() => Verb::List,
        Method::GET | Method::HEAD => Verb::Get,
        Method::OPTIONS if subresource == "proxy" => Verb::Get,
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE if name.is_empty() => Verb::DeleteCollection,
        Method::DELETE => Verb::Delete,
        _ => return None,
    })
}

fn trimmed(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed,
    }
}

/// A path segment without its percent signs.
pub(crate) fn decoded(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.filter(|_| first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, uri: &str) -> RequestInfo {
        let uri: http::Uri = uri.parse().expect("a valid uri");
        RequestInfo::parse(&method, uri.path(), &Query::of(&uri))
    }

    #[test]
    fn paths_of_resources_are_understood() {
        let table = [
            (Method::GET, "/api/v1/pods", "list  v1 pods   "),
            (Method::GET, "/api/v1/pods?watch=true", "watch  v1 pods   "),
            (Method::GET, "/api/v1/namespaces", "list  v1 namespaces   "),
            (Method::GET, "/api/v1/namespaces/a", "get  v1 namespaces  a "),
            (Method::PUT, "/api/v1/namespaces/a/finalize", "update  v1 namespaces  a finalize"),
            (Method::GET, "/api/v1/namespaces/a/pods/b", "get  v1 pods a b "),
            (Method::GET, "/api/v1/namespaces/a/pods/b/log", "get  v1 pods a b log"),
            (Method::DELETE, "/api/v1/namespaces/a/pods", "deletecollection  v1 pods a  "),
            (
                Method::POST,
                "/apis/apps/v1/namespaces/a/deployments",
                "create apps v1 deployments a  ",
            ),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/b/scale",
                "patch apps v1 deployments a b scale",
            ),
            (Method::GET, "/api/v1/nodes/n/proxy/logs/x", "get  v1 nodes  n proxy"),
            (
                Method::POST,
                "/api/v1/namespaces/a/services/https:b:c/proxy/x/y/?watch=1",
                "create  v1 services a https:b:c proxy",
            ),
            (Method::GET, "/api/v1/nodes/a%2Fb", "get  v1 nodes  a/b "),
        ];
        for (method, uri, expected) in table {
            let RequestInfo::Resource(path) = parse(method, uri) else { panic!("{uri}") };
            let ResourcePath { verb, group, version, resource, subresource, namespace, name } =
                path;
            let found =
                format!("{verb} {group} {version} {resource} {namespace} {name} {subresource}");
            assert_eq!(found, expected, "{uri}");
        }
    }

    #[test]
    fn other_paths_are_paths() {
        for uri in ["/", "/healthz", "/api", "/api/v1", "/apis/apps/v1/", "/openapi/v3"] {
            assert!(matches!(parse(Method::GET, uri), RequestInfo::Path { .. }), "{uri}");
        }
    }
}
