//! CustomResourceDefinition: a kind that a client brings along. What comes of it is in [`crate::crd`].

use async_trait::async_trait;
use kontiki_storage::kv::Op;
use serde_json::{Value, json};

use super::defaults::fill;
use super::{check, check_change};
use crate::context::RequestContext;
use crate::crd::check::{self as rules, Established};
use crate::crd::names::{self, Condition};
use crate::object::Object;
use crate::registry::strategy::{ALL_VERBS, Attached, Kind, Scope, Strategy, Subresource};
use crate::registry::{Registry, seconds};
use crate::status::{FieldError, Status};

/// The kind.
pub static KIND: Kind = Kind {
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    storage: "apiextensions.k8s.io/customresourcedefinitions",
    subresources: &[Subresource::STATUS],
    verbs: ALL_VERBS,
    strategy: &CustomResourceDefinition,
};

/// Holds a definition until its objects are deleted.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

#[derive(Debug)]
struct CustomResourceDefinition;

#[async_trait]
impl Strategy for CustomResourceDefinition {
    fn default(&self, object: &mut Object) {
        let kind = object.str_at("/spec/names/kind").to_owned();
        if !object.value()["spec"].is_object() {
            return;
        }
        if object.value()["spec"]["names"].is_object() {
            object.set_default(&["spec", "names", "singular"], kind.to_lowercase());
            object.set_default(&["spec", "names", "listKind"], format!("{kind}List"));
        }
        object.set_default(&["spec", "conversion"], json!({ "strategy": "None" }));
        let service =
            object.value_mut().pointer_mut("/spec/conversion/webhook/clientConfig/service");
        if let Some(service) = service.filter(|service| service.is_object()) {
            fill(service, "port", 443);
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, object: &mut Object) {
        self.prepare_create_default(object);
        add_stored_version(object);
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, object: &mut Object, old: &Object) {
        self.prepare_update_default(object, old);
        add_stored_version(object);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        check(object, rules::check)
    }

    fn validate_update(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        let is_established = names::is_true(old, "Established");
        let established = if is_established { Established::Yes } else { Established::No };
        check_change(object, old, |errors, new, old| {
            rules::check_change(errors, new, old, established);
        })
    }

    fn validate_status_update(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        check(object, rules::check_stored)
    }

    fn begin_deletion(&self, object: &mut Object) {
        let mut finalizers: Vec<String> =
            object.finalizers().into_iter().map(ToOwned::to_owned).collect();
        if !finalizers.iter().any(|finalizer| finalizer == CLEANUP) {
            finalizers.push(CLEANUP.to_owned());
        }
        object.set_finalizers(&finalizers);
        let now = object.str_at("/metadata/deletionTimestamp").to_owned();
        let condition = Condition {
            kind: "Terminating",
            status: "True",
            reason: "InstanceDeletionPending",
            message: "CustomResourceDefinition marked for deletion; CustomResource deletion will \
                      begin soon",
        };
        names::set_condition(object, condition, &now);
    }

    async fn admit_create(
        &self,
        ctx: &RequestContext,
        registry: &Registry,
        object: &mut Object,
    ) -> Result<Attached, Status> {
        settle(ctx, registry, object).await
    }

    async fn admit_update(
        &self,
        ctx: &RequestContext,
        registry: &Registry,
        object: &mut Object,
        _old: &Object,
    ) -> Result<Attached, Status> {
        if names::are_settled(object) {
            return Ok(Attached::default());
        }
        settle(ctx, registry, object).await
    }
}

/// Accepts the names that are free, on the condition that nobody else gets any meanwhile.
async fn settle(
    ctx: &RequestContext,
    registry: &Registry,
    object: &mut Object,
) -> Result<Attached, Status> {
    let (others, unchanged) = registry.definitions().await?;
    names::accept(object, &others, &seconds(ctx.now));
    let claim = Op::put(Registry::names_guard(), object.name().to_owned());
    Ok(Attached { compare: vec![unchanged], ops: vec![claim] })
}

/// Objects may be stored in the storage version from now on, as in all that it was before.
fn add_stored_version(object: &mut Object) {
    let versions = object.at("/spec/versions").and_then(Value::as_array);
    let storage = versions.into_iter().flatten().find(|version| version["storage"] == true);
    let Some(name) = storage.and_then(|version| version.get("name")).cloned() else { return };
    let stored = object.entry(&["status", "storedVersions"]);
    if !stored.is_array() {
        *stored = json!([]);
    }
    if let Some(list) = stored.as_array_mut().filter(|list| !list.contains(&name)) {
        list.push(name);
    }
}
