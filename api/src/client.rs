//! [`Client`]: the API for who runs in this process. Every call is authorized, admitted and
//! validated like one from outside, without HTTP and JSON text in between.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kontiki_storage::kv::Term;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::authn::{MASTERS, User};
use crate::authz::{Attributes, Authorizer, ResourceAttributes, decide};
use crate::context::RequestContext;
use crate::object::Object;
use crate::registry::Registry;
use crate::registry::options::{DeleteOptions, Deleted, ListOptions, ObjectList, Part, Patch};
use crate::registry::strategy::Kind;
use crate::request_info::Verb;
use crate::status::Status;

/// A type of `k8s-openapi` that is an API object.
pub trait ApiType:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<K> ApiType for K where
    K: k8s_openapi::Resource
        + k8s_openapi::Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// The API in process, as one user.
#[derive(Clone)]
pub struct Client {
    registry: Arc<Registry>,
    authorizer: Arc<dyn Authorizer>,
    user: Arc<User>,
    fence: Option<Term>,
    manager: Arc<str>,
}

impl Client {
    pub(crate) fn new(registry: Arc<Registry>, authorizer: Arc<dyn Authorizer>) -> Self {
        let user = in_process(User::authenticated("system:kontiki:server", &[MASTERS]));
        Self { registry, authorizer, user, fence: None, manager: "kontiki".into() }
    }

    /// The same as another user.
    #[must_use]
    pub fn as_user(&self, name: &str, groups: &[&str]) -> Self {
        let user = in_process(User::authenticated(name, groups));
        let manager = name.rsplit(':').next().unwrap_or(name).into();
        Self { user, manager, ..self.clone() }
    }

    /// The same as a service account.
    #[must_use]
    pub fn as_service_account(&self, namespace: &str, name: &str) -> Self {
        let user = in_process(User::service_account(namespace, name));
        Self { user, manager: name.into(), ..self.clone() }
    }

    /// The same with every write refused once `term` is past (invariant R9).
    #[must_use]
    pub fn fenced(&self, term: Term) -> Self {
        Self { fence: Some(term), ..self.clone() }
    }

    /// The kind of a type.
    pub fn kind_of<K: ApiType>(&self) -> Result<&'static Kind, Status> {
        self.registry.scheme().kind(K::GROUP, K::VERSION, K::KIND).ok_or_else(Status::no_such_path)
    }

    /// All kinds.
    pub fn kinds(&self) -> Vec<&'static Kind> {
        self.registry.scheme().kinds()
    }

    /// One kind for every folder of objects in the store.
    pub fn stored_kinds(&self) -> Vec<&'static Kind> {
        self.registry.scheme().stored_kinds()
    }

    /// One object; `namespace` is empty for what has none.
    pub async fn get<K: ApiType>(&self, namespace: &str, name: &str) -> Result<K, Status> {
        self.get_object(self.kind_of::<K>()?, namespace, name).await?.into_typed()
    }

    /// The objects of a namespace, or of all where it is empty.
    pub async fn list<K: ApiType>(
        &self,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<Vec<K>, Status> {
        let list = self.list_objects(self.kind_of::<K>()?, namespace, options).await?;
        list.items.into_iter().map(Object::into_typed).collect()
    }

    /// Creates an object in the namespace its metadata names.
    pub async fn create<K: ApiType>(&self, object: &K) -> Result<K, Status> {
        let kind = self.kind_of::<K>()?;
        self.create_object(kind, Object::from_typed(object)?).await?.into_typed()
    }

    /// Updates an object; with a resourceVersion only if it is still at that.
    pub async fn update<K: ApiType>(&self, object: &K) -> Result<K, Status> {
        let kind = self.kind_of::<K>()?;
        self.update_object(kind, Part::Main, Object::from_typed(object)?).await?.into_typed()
    }

    /// Updates the status of an object.
    pub async fn update_status<K: ApiType>(&self, object: &K) -> Result<K, Status> {
        let kind = self.kind_of::<K>()?;
        self.update_object(kind, Part::Status, Object::from_typed(object)?).await?.into_typed()
    }

    /// Patches an object or its status.
    pub async fn patch<K: ApiType>(
        &self,
        namespace: &str,
        name: &str,
        part: Part,
        patch: &Patch,
    ) -> Result<K, Status> {
        let kind = self.kind_of::<K>()?;
        self.patch_object(kind, namespace, name, part, patch).await?.into_typed()
    }

    /// Deletes an object.
    pub async fn delete<K: ApiType>(
        &self,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        self.delete_object(self.kind_of::<K>()?, namespace, name, options).await
    }

    /// Sends a pod to a node. `uid`, where not empty, must be the pod's.
    pub async fn bind(
        &self,
        namespace: &str,
        pod: &str,
        uid: &str,
        node: &str,
    ) -> Result<(), Status> {
        let kind = self.registry.scheme().kind("", "v1", "Pod").ok_or_else(Status::no_such_path)?;
        let binding = Object::new(json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": { "name": pod, "namespace": namespace, "uid": uid },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        }))
        .expect("a literal object must be one");
        let ctx = self.context(kind, Verb::Create, "binding", namespace, pod).await?;
        self.registry.bind(&ctx, kind, namespace, pod, &binding).await
    }

    /// Whether somebody may do that; what was written before the call counts.
    pub async fn lets(&self, user: &User, attributes: &Attributes) -> bool {
        decide(&*self.authorizer, user, attributes).await.is_ok()
    }

    /// One object of a kind.
    pub async fn get_object(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Object, Status> {
        let ctx = self.context(kind, Verb::Get, "", namespace, name).await?;
        self.registry.get(&ctx, kind, namespace, name).await
    }

    /// The objects of a kind.
    pub async fn list_objects(
        &self,
        kind: &'static Kind,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<ObjectList, Status> {
        let ctx = self.context(kind, Verb::List, "", namespace, "").await?;
        self.registry.list(&ctx, kind, namespace, options).await
    }

    /// Creates an object of a kind.
    pub async fn create_object(
        &self,
        kind: &'static Kind,
        object: Object,
    ) -> Result<Object, Status> {
        let namespace = object.namespace().to_owned();
        let ctx = self.context(kind, Verb::Create, "", &namespace, object.name()).await?;
        self.registry.create(&ctx, kind, &namespace, object).await
    }

    /// Updates an object of a kind, or a part of it.
    pub async fn update_object(
        &self,
        kind: &'static Kind,
        part: Part,
        object: Object,
    ) -> Result<Object, Status> {
        let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
        let ctx = self.context(kind, Verb::Update, part.subresource(), &namespace, &name).await?;
        self.registry.update(&ctx, kind, part, &namespace, &name, object).await
    }

    /// Patches an object of a kind, or a part of it.
    pub async fn patch_object(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        part: Part,
        patch: &Patch,
    ) -> Result<Object, Status> {
        let ctx = self.context(kind, Verb::Patch, part.subresource(), namespace, name).await?;
        self.registry.patch(&ctx, kind, part, namespace, name, patch).await
    }

    /// The number of replicas of an object, as its scale.
    pub async fn scale(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Object, Status> {
        let ctx = self.context(kind, Verb::Get, "scale", namespace, name).await?;
        self.registry.scale(&ctx, kind, namespace, name).await
    }

    /// Changes it, if the object is still as the scale says.
    pub async fn update_scale(
        &self,
        kind: &'static Kind,
        scale: &Object,
    ) -> Result<Object, Status> {
        let (namespace, name) = (scale.namespace(), scale.name());
        let ctx = self.context(kind, Verb::Update, "scale", namespace, name).await?;
        self.registry.update_scale(&ctx, kind, namespace, name, scale).await
    }

    /// Deletes an object of a kind.
    pub async fn delete_object(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        let ctx = self.context(kind, Verb::Delete, "", namespace, name).await?;
        self.registry.delete(&ctx, kind, namespace, name, options).await
    }

    async fn context(
        &self,
        kind: &'static Kind,
        verb: Verb,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<RequestContext, Status> {
        let attributes = Attributes::Resource(ResourceAttributes {
            verb: verb.as_str().into(),
            group: kind.group.into(),
            version: kind.version.into(),
            resource: kind.plural.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..ResourceAttributes::default()
        });
        let user = Arc::clone(&self.user);
        let mut ctx = RequestContext::authorize_latest(&*self.authorizer, user, attributes).await?;
        ctx.fence = self.fence;
        ctx.field_manager = self.manager.to_string();
        Ok(ctx)
    }
}

fn in_process(user: User) -> Arc<User> {
    Arc::new(User { is_in_process: true, ..user })
}
