//! Discovery: which groups, versions and resources there are. kubectl asks before anything else.
//!
//! Two forms say the same: the classic one, a document per group and version, and the aggregated
//! one, everything below `/api` or `/apis` in one document. The client chooses by `Accept`, so an
//! answer must carry `Vary: Accept`. All documents are made once, from the kinds.

mod aggregated;
mod classic;
pub mod priority;

use std::cmp::Reverse;
use std::collections::HashMap;

use base64::Engine as _;
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::aggregate::Known;
use crate::aggregate::remote::Remote;
use crate::crd::stability;
use crate::registry::strategy::{Kind, Subresource};
use crate::request_info::Verb;
use priority::Priority;

/// The form in which a client takes the list of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `APIVersions`, `APIGroupList`.
    Classic,
    /// `APIGroupDiscoveryList` of `apidiscovery.k8s.io/v2`.
    V2,
    /// `APIGroupDiscoveryList` of `apidiscovery.k8s.io/v2beta1`.
    V2Beta1,
}

/// What of discovery is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path<'a> {
    /// `/api`
    Api,
    /// `/apis`
    Apis,
    /// `/apis/GROUP`
    Group(&'a str),
    /// `/api/VERSION` (with an empty group) and `/apis/GROUP/VERSION`
    GroupVersion(&'a str, &'a str),
}

/// A document, ready to be sent.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its bytes.
    pub body: Bytes,
    /// Its media type.
    pub content_type: &'static str,
    /// Its entity tag, quoted.
    pub etag: String,
}

/// Every document of discovery.
#[derive(Debug)]
pub struct Discovery {
    api: HashMap<Form, Document>,
    apis: HashMap<Form, Document>,
    groups: HashMap<String, Document>,
    versions: Vec<(String, String, Document)>,
}

/// One version of a group.
struct GroupVersion<'a> {
    group: &'a str,
    version: &'a str,
    served: Served<'a>,
}

/// By whom a version is served.
enum Served<'a> {
    /// By this server: its kinds.
    Here(Vec<&'a Kind>),
    /// By another one.
    There(&'a Remote),
}

const JSON: &str = "application/json";

impl Form {
    const ALL: [Self; 3] = [Self::Classic, Self::V2, Self::V2Beta1];

    /// The first form that `Accept` names; the classic one otherwise.
    pub fn of_accept(accept: &str) -> Self {
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            if !matches!(parts.next(), Some("application/json")) {
                continue;
            }
            let (mut version, mut aggregated, mut group) = (None, false, false);
            for parameter in parts {
                match parameter.split_once('=') {
                    Some(("v", text)) => version = Some(text),
                    Some(("as", "APIGroupDiscoveryList")) => aggregated = true,
                    Some(("g", "apidiscovery.k8s.io")) => group = true,
                    _ => {}
                }
            }
            match version {
                Some("v2") if aggregated && group => return Self::V2,
                Some("v2beta1") if aggregated && group => return Self::V2Beta1,
                None if !aggregated => return Self::Classic,
                _ => {}
            }
        }
        Self::Classic
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Classic => JSON,
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => {
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
            }
        }
    }
}

impl Discovery {
    /// The documents for these kinds and for what other servers serve, in the order of their
    /// priorities; `stored` has the kind in whose form each folder of the store is kept.
    /// `server_address` is what `/api` gives as the way here, host and port; empty gives none.
    pub(crate) fn new(
        kinds: &[&'static Kind],
        stored: &[&'static Kind],
        known: &Known,
        server_address: &str,
    ) -> Self {
        let all = group_versions(kinds, known);
        let hashes = StorageHashes::of(stored);
        let (core, named): (Vec<_>, Vec<_>) = all.iter().partition(|gv| gv.group.is_empty());
        let documents = |of: &[&GroupVersion<'_>], classic: Value| {
            Form::ALL
                .into_iter()
                .map(|form| {
                    let value = match form {
                        Form::Classic => classic.clone(),
                        Form::V2 => aggregated::list(of, "v2"),
                        Form::V2Beta1 => aggregated::list(of, "v2beta1"),
                    };
                    (form, Document::new(&value, form.content_type()))
                })
                .collect()
        };
        Self {
            api: documents(&core, classic::api_versions(&core, server_address)),
            apis: documents(&named, classic::api_group_list(&named)),
            groups: classic::groups(&named)
                .into_iter()
                .map(|(name, value)| (name.to_owned(), Document::new(&value, JSON)))
                .collect(),
            versions: all
                .iter()
                .filter_map(|gv| {
                    // Another server's document is its own to give.
                    let Served::Here(kinds) = &gv.served else { return None };
                    let value = classic::api_resource_list(gv, kinds, &hashes);
                    let (group, version) = (gv.group.to_owned(), gv.version.to_owned());
                    Some((group, version, Document::new(&value, JSON)))
                })
                .collect(),
        }
    }

    /// The paths of all documents.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
        paths.extend(self.groups.keys().map(|group| format!("/apis/{group}")));
        paths.extend(self.versions.iter().map(|(group, version, _)| match group.as_str() {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        }));
        paths
    }

    /// The document of a path, in the form that `accept` asks for; nothing where there is none.
    pub fn document(&self, path: Path<'_>, accept: &str) -> Option<&Document> {
        match path {
            Path::Api => self.api.get(&Form::of_accept(accept)),
            Path::Apis => self.apis.get(&Form::of_accept(accept)),
            Path::Group(name) => self.groups.get(name),
            Path::GroupVersion(group, version) => {
                let mut versions = self.versions.iter();
                let found = versions.find(|(g, v, _)| g == group && v == version);
                found.map(|(_, _, document)| document)
            }
        }
    }
}

impl Document {
    pub(crate) fn new(value: &Value, content_type: &'static str) -> Self {
        let body = Bytes::from(value.to_string());
        let etag = etag(&body);
        Self { body, content_type, etag }
    }
}

/// The entity tag of a content, quoted.
pub(crate) fn etag(content: &[u8]) -> String {
    format!("\"{}\"", hash(content))
}

/// The hash of a content, as `?hash=` and entity tags carry it.
pub(crate) fn hash(content: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(content).iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02X}").expect("a string takes all");
        hex
    })
}

/// What tells clients that move stored objects to a newer version whether they have to.
struct StorageHashes(HashMap<&'static str, String>);

impl StorageHashes {
    /// The first bytes of the hash of the group, version and kind in which a folder is kept.
    fn of(stored: &[&'static Kind]) -> Self {
        const BYTES: usize = 8;
        let hash = |kind: &&'static Kind| {
            let name = format!("{}/{}/{}", kind.group, kind.version, kind.kind);
            let hash = &Sha256::digest(name)[..BYTES];
            (kind.storage, base64::engine::general_purpose::STANDARD.encode(hash))
        };
        Self(stored.iter().map(hash).collect())
    }

    fn get(&self, kind: &Kind) -> Option<&String> {
        self.0.get(kind.storage)
    }
}

/// All versions, the groups of the highest priority first, of each group the preferred version first.
/// What another server serves is not served here.
fn group_versions<'a>(kinds: &[&'a Kind], known: &'a Known) -> Vec<GroupVersion<'a>> {
    let is_there = |kind: &Kind| {
        let name = (kind.group.to_owned(), kind.version.to_owned());
        known.remotes.contains_key(&name)
    };
    let mut all: Vec<GroupVersion<'a>> = known
        .remotes
        .values()
        .map(|one| GroupVersion {
            group: &one.group,
            version: &one.version,
            served: Served::There(one),
        })
        .collect();
    for kind in kinds.iter().filter(|kind| !is_there(kind)) {
        let same =
            |gv: &&mut GroupVersion<'_>| (gv.group, gv.version) == (kind.group, kind.version);
        match all.iter_mut().find(same).map(|gv| &mut gv.served) {
            Some(Served::Here(kinds)) => kinds.push(kind),
            _ => all.push(GroupVersion {
                group: kind.group,
                version: kind.version,
                served: Served::Here(vec![kind]),
            }),
        }
    }
    for gv in &mut all {
        if let Served::Here(kinds) = &mut gv.served {
            kinds.sort_by_key(|kind| kind.plural);
        }
    }
    in_order(all, known)
}

fn in_order<'a>(mut all: Vec<GroupVersion<'a>>, known: &Known) -> Vec<GroupVersion<'a>> {
    let priority = |group: &str, version: &str| {
        let registered = known.priorities.get(&(group.to_owned(), version.to_owned()));
        registered.copied().unwrap_or_else(|| Priority::unregistered(group, version))
    };
    let mut of_group: HashMap<&'a str, i64> = HashMap::new();
    for gv in &all {
        let own = priority(gv.group, gv.version).group;
        of_group.entry(gv.group).and_modify(|max| *max = own.max(*max)).or_insert(own);
    }
    all.sort_by_key(|gv| {
        let own = priority(gv.group, gv.version);
        let of_group = of_group.get(gv.group).copied().unwrap_or_default();
        (
            Reverse(of_group),
            gv.group,
            Reverse(own.version),
            Reverse(stability(gv.version)),
            gv.version,
        )
    });
    all
}

fn verbs(verbs: &[Verb]) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = verbs.iter().map(|verb| verb.as_str()).collect();
    names.sort_unstable();
    names
}

/// Group, version and kind of a subresource's document.
pub(crate) fn subresource_kind(
    kind: &Kind,
    sub: &Subresource,
) -> (&'static str, &'static str, &'static str) {
    let (group, version) = sub.group_version.unwrap_or((kind.group, kind.version));
    (group, version, sub.kind.unwrap_or(kind.kind))
}

#[cfg(test)]
mod tests;
