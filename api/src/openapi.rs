//! OpenAPI: what kubectl reads to explain, validate and merge.
//!
//! A document is made on first demand from three sources: k8s-openapi's descriptions, the table of
//! types ([`crate::schema`]) for what Kubernetes adds to them, and the kinds for the paths. Only its
//! compressed bytes are kept, since a server at rest shall be small. Making one takes some tens of
//! milliseconds: call from where blocking is allowed.

mod custom;
mod gnostic;
mod measured;
mod merge;
mod paths;
pub mod roots;
mod schemas;

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use crate::aggregate::remote::Remote;
use crate::discovery::{self, Document};
use crate::registry::strategy::Kind;

/// The version of Kubernetes that the API is that of.
const KUBERNETES_VERSION: &str = "v1.35.0";
/// The media type of [`OpenApi::v2`] in protobuf, as clients ask for it.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The same, as the answer names it: Go's clients cannot parse the `@`.
const V2_PROTOBUF_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
pub(crate) const JSON: &str = "application/json";

/// The two forms of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// Swagger 2.0: definitions, body parameters.
    V2,
    /// OpenAPI 3.0: components, request bodies.
    V3,
}

impl Style {
    fn reference(self, name: &str) -> Value {
        match self {
            Self::V2 => json!({ "$ref": format!("#/definitions/{name}") }),
            Self::V3 => json!({ "$ref": format!("#/components/schemas/{name}") }),
        }
    }
}

/// A document kept compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    gzip: Bytes,
    content_type: &'static str,
    hash: String,
}

/// Every OpenAPI document of a set of kinds.
pub struct OpenApi {
    kinds: Vec<&'static Kind>,
    /// Those whose documents of the third form are made here.
    own: Vec<&'static Kind>,
    /// Has those of the built-in kinds, which do not change.
    built_in: Option<Arc<Self>>,
    /// What other servers serve.
    remotes: Vec<Arc<Remote>>,
    v3: OnceLock<Vec<(String, Packed)>>,
    v2_json: OnceLock<Packed>,
    v2_protobuf: OnceLock<Packed>,
}

impl Packed {
    pub(crate) fn new(plain: &[u8], content_type: &'static str) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).expect("memory takes all that is written");
        let gzip = encoder.finish().expect("memory takes all that is written");
        Self { gzip: gzip.into(), content_type, hash: discovery::hash(plain) }
    }

    /// Its gzip bytes, to send with `Content-Encoding: gzip`.
    pub fn gzip(&self) -> Bytes {
        self.gzip.clone()
    }

    /// Its bytes, to send to who does not take gzip.
    pub fn plain(&self) -> Bytes {
        let mut plain = Vec::new();
        GzDecoder::new(self.gzip.as_ref())
            .read_to_end(&mut plain)
            .expect("what was compressed here must be readable");
        plain.into()
    }

    /// Its media type.
    pub fn content_type(&self) -> &'static str {
        self.content_type
    }

    /// The hash of its content, the value of `?hash=`.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Its entity tag, quoted.
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.hash)
    }
}

impl OpenApi {
    /// The documents of these kinds; none is made yet.
    pub fn new(kinds: &[&'static Kind]) -> Self {
        Self {
            kinds: kinds.to_vec(),
            own: kinds.to_vec(),
            built_in: None,
            remotes: Vec::new(),
            v3: OnceLock::new(),
            v2_json: OnceLock::new(),
            v2_protobuf: OnceLock::new(),
        }
    }

    /// The documents of the built-in kinds together with those of custom kinds and of other servers.
    #[must_use]
    pub(crate) fn with(
        self: &Arc<Self>,
        custom: &[&'static Kind],
        remotes: &[Arc<Remote>],
    ) -> Arc<Self> {
        if custom.is_empty() && remotes.is_empty() {
            return Arc::clone(self);
        }
        let is_here = |kind: &&'static Kind| {
            !remotes.iter().any(|one| one.group == kind.group && one.version == kind.version)
        };
        let custom: Vec<&'static Kind> = custom.iter().copied().filter(is_here).collect();
        let built_in = self.kinds.iter().copied().filter(is_here);
        let kinds: Vec<&'static Kind> = built_in.chain(custom.iter().copied()).collect();
        let (built_in, remotes) = (Some(Arc::clone(self)), remotes.to_vec());
        Arc::new(Self { own: custom, built_in, remotes, ..Self::new(&kinds) })
    }

    /// Every document of the third form with its path.
    fn documents(&self) -> Vec<(String, &Packed)> {
        let path = |remote: &Remote| format!("apis/{}/{}", remote.group, remote.version);
        let there: HashSet<String> = self.remotes.iter().map(|one| path(one)).collect();
        let built_in = self.built_in.iter().flat_map(|built_in| built_in.v3());
        let here = built_in.chain(self.v3()).filter(|(path, _)| !there.contains(path));
        let here = here.map(|(path, document)| (path.clone(), document));
        let remotes = self.remotes.iter();
        let remote = remotes.filter_map(|one| Some((path(one), one.v3.as_ref()?)));
        here.chain(remote).collect()
    }

    /// `/openapi/v3`: where each document is. The hash in an address changes with the content, so
    /// that what is behind it can be cached for ever.
    pub fn index(&self) -> Document {
        let mut paths = Map::new();
        for (path, document) in self.documents() {
            let url = format!("/openapi/v3/{path}?hash={}", document.hash);
            paths.insert(path, json!({ "serverRelativeURL": url }));
        }
        Document::new(&json!({ "paths": paths }), JSON)
    }

    /// `/openapi/v3/PATH`, where `path` is `api/v1` or `apis/GROUP/VERSION`.
    pub fn group_version(&self, path: &str) -> Option<&Packed> {
        let mut all = self.documents().into_iter();
        all.find(|(known, _)| known == path).map(|(_, document)| document)
    }

    /// `/openapi/v2`, in protobuf where `accept` names it.
    pub fn v2(&self, accept: &str) -> &Packed {
        if accept.contains("proto-openapi.spec.v2") {
            self.v2_protobuf.get_or_init(|| {
                Packed::new(&gnostic::document(&self.v2_document()), V2_PROTOBUF_ANSWER)
            })
        } else {
            self.v2_json
                .get_or_init(|| Packed::new(self.v2_document().to_string().as_bytes(), JSON))
        }
    }

    fn v3(&self) -> &[(String, Packed)] {
        self.v3.get_or_init(|| {
            let mut versions: Vec<(&str, &str)> = Vec::new();
            for kind in &self.own {
                if !versions.contains(&(kind.group, kind.version)) {
                    versions.push((kind.group, kind.version));
                }
            }
            versions.into_iter().map(|(group, version)| self.v3_document(group, version)).collect()
        })
    }

    fn v3_document(&self, group: &str, version: &str) -> (String, Packed) {
        let kinds: Vec<&Kind> = self
            .own
            .iter()
            .copied()
            .filter(|kind| (kind.group, kind.version) == (group, version))
            .collect();
        let document = json!({
            "openapi": "3.0.0",
            "info": info(),
            "paths": paths::paths(&kinds, Style::V3),
            "components": { "schemas": schemas::schemas(&kinds, Style::V3) },
        });
        let path = paths::prefix(group, version).trim_start_matches('/').to_owned();
        (path, Packed::new(document.to_string().as_bytes(), JSON))
    }

    fn v2_document(&self) -> Value {
        let kinds: Vec<&Kind> = self.kinds.clone();
        let mut document = json!({
            "swagger": "2.0",
            "info": info(),
            "paths": paths::paths(&kinds, Style::V2),
            "definitions": schemas::schemas(&kinds, Style::V2),
        });
        for part in self.remotes.iter().filter_map(|remote| remote.v2.as_ref()) {
            merge::merge(&mut document, part);
        }
        document
    }
}

impl std::fmt::Debug for OpenApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenApi of {:?}", self.kinds)
    }
}

fn info() -> Value {
    json!({ "title": "Kubernetes", "version": KUBERNETES_VERSION })
}

#[cfg(test)]
mod tests;
