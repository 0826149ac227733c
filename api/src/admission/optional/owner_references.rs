//! [`OwnerReferences`]: who changes an object's owners could have it deleted, and so must be allowed
//! to delete it; who lets an object hold up its owner must be allowed to hold that up.

use std::sync::Arc;

use async_trait::async_trait;

use crate::admission::{Admit, Operation, Plugin};
use crate::authz::{Attributes, Authorizer, ResourceAttributes, decide};
use crate::object::{Object, OwnerRef};
use crate::registry::scheme::split_api_version;
use crate::status::Status;

/// Checks changes of owners.
pub(super) struct OwnerReferences {
    authorizer: Arc<dyn Authorizer>,
}

impl OwnerReferences {
    pub(super) fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self { authorizer }
    }

    async fn may(&self, admit: &Admit<'_>, wanted: ResourceAttributes) -> Result<(), String> {
        let attributes = Attributes::Resource(wanted);
        decide(&*self.authorizer, admit.ctx.user(), &attributes).await
    }
}

#[async_trait]
impl Plugin for OwnerReferences {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    async fn validate(&self, admit: &Admit<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        // Of the parts of pods none changes owners.
        let is_of_pods = (admit.kind.group, admit.kind.plural) == ("", "pods");
        if is_of_pods && !admit.subresource.is_empty() {
            return Ok(());
        }
        let now = object.owner_refs();
        let before = admit.old.map(Object::owner_refs).unwrap_or_default();
        let refuse = |why: String| {
            Status::forbidden(admit.kind.group, admit.kind.plural, object.name(), why)
        };
        if admit.operation == Operation::Update && now != before {
            let deletion = ResourceAttributes {
                verb: "delete".into(),
                group: admit.kind.group.into(),
                version: admit.kind.version.into(),
                resource: admit.kind.plural.into(),
                namespace: admit.namespace.into(),
                name: admit.name.into(),
                ..ResourceAttributes::default()
            };
            self.may(admit, deletion).await.map_err(|why| {
                let begin = "cannot set an ownerRef on a resource you can't delete: ";
                refuse(format!("{begin}{why}, <nil>"))
            })?;
        }
        for owner in now.iter().filter(|owner| begins_to_block(owner, &before)) {
            self.may(admit, holding(admit, owner)).await.map_err(|why| {
                let begin = "cannot set blockOwnerDeletion if an ownerReference refers to a \
                             resource you can't set finalizers on: ";
                refuse(format!("{begin}{why}, <nil>"))
            })?;
        }
        Ok(())
    }
}

fn begins_to_block(owner: &OwnerRef, before: &[OwnerRef]) -> bool {
    let blocked = |old: &OwnerRef| old.uid == owner.uid && old.block_owner_deletion == Some(true);
    owner.block_owner_deletion == Some(true) && !before.iter().any(blocked)
}

/// What one must be allowed to hold up the deletion of an owner; an unknown kind is everything.
fn holding(admit: &Admit<'_>, owner: &OwnerRef) -> ResourceAttributes {
    let (group, version) = split_api_version(&owner.api_version);
    let kind = admit.registry.scheme().kind(group, version, &owner.kind);
    let is_namespaced = kind.is_some_and(crate::registry::strategy::Kind::is_namespaced);
    ResourceAttributes {
        verb: "update".into(),
        group: group.into(),
        version: version.into(),
        resource: kind.map_or("*", |kind| kind.plural).into(),
        subresource: "finalizers".into(),
        namespace: if is_namespaced { admit.namespace.into() } else { String::new() },
        name: owner.name.clone(),
        ..ResourceAttributes::default()
    }
}
