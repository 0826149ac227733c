//! The generic registry: what is the same for every kind of object, over any [`Kv`].

pub mod key;
pub mod options;
pub mod scheme;
pub mod strategy;

use std::sync::Arc;

use kontiki_storage::kv::Kv;

use crate::admission::Admission;
use crate::context::RequestContext;
use crate::object::Object;
use crate::status::Status;
use options::{DeleteOptions, Deleted, ListOptions, ObjectList, Part, Patch};
use scheme::Scheme;
use strategy::Kind;

/// Objects of all kinds in the store.
pub struct Registry {
    kv: Arc<dyn Kv>,
    scheme: Arc<Scheme>,
    #[expect(dead_code, reason = "used by the next commit")]
    admission: Admission,
}

impl Registry {
    /// The registry over a store.
    pub fn new(kv: Arc<dyn Kv>, scheme: Arc<Scheme>, admission: Admission) -> Self {
        Self { kv, scheme, admission }
    }

    /// The store.
    pub fn kv(&self) -> &Arc<dyn Kv> {
        &self.kv
    }

    /// The kinds.
    pub fn scheme(&self) -> &Arc<Scheme> {
        &self.scheme
    }

    /// Reads one object.
    pub async fn get(
        &self,
        _ctx: &RequestContext,
        kind: &'static Kind,
        _namespace: &str,
        name: &str,
    ) -> Result<Object, Status> {
        Err(Status::not_found(kind.group, kind.plural, name))
    }

    /// Reads a page of objects.
    pub async fn list(
        &self,
        _ctx: &RequestContext,
        _kind: &'static Kind,
        _namespace: &str,
        _options: &ListOptions,
    ) -> Result<ObjectList, Status> {
        Err(Status::no_such_path())
    }

    /// Creates an object.
    pub async fn create(
        &self,
        _ctx: &RequestContext,
        _kind: &'static Kind,
        _namespace: &str,
        _object: Object,
    ) -> Result<Object, Status> {
        Err(Status::no_such_path())
    }

    /// Replaces an object, or a part of it.
    pub async fn update(
        &self,
        _ctx: &RequestContext,
        _kind: &'static Kind,
        _part: Part,
        _namespace: &str,
        _name: &str,
        _object: Object,
    ) -> Result<Object, Status> {
        Err(Status::no_such_path())
    }

    /// Changes an object, or a part of it.
    pub async fn patch(
        &self,
        _ctx: &RequestContext,
        _kind: &'static Kind,
        _part: Part,
        _namespace: &str,
        _name: &str,
        _patch: &Patch,
    ) -> Result<Object, Status> {
        Err(Status::no_such_path())
    }

    /// Deletes an object, or begins to.
    pub async fn delete(
        &self,
        _ctx: &RequestContext,
        _kind: &'static Kind,
        _namespace: &str,
        _name: &str,
        _options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        Err(Status::no_such_path())
    }

    /// Sends a pod to a node.
    pub async fn bind(
        &self,
        _ctx: &RequestContext,
        _kind: &'static Kind,
        _namespace: &str,
        _name: &str,
        _binding: &Object,
    ) -> Result<(), Status> {
        Err(Status::no_such_path())
    }
}
