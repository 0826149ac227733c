//! [`Escalation`]: nobody gives rights away that they do not have themselves, neither by a role nor
//! by a binding to one; except who may `escalate` that role, or `bind` it.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use serde_json::Value;

use super::{Admit, Operation, Plugin};
use crate::authn::MASTERS;
use crate::authz::rbac::Rbac;
use crate::authz::{Attributes, Authorizer, ResourceAttributes, covers, decide, defaults};
use crate::object::Object;
use crate::resources::rbac::GROUP;
use crate::status::Status;

/// Checks writes of roles and bindings.
pub struct Escalation {
    rbac: Arc<Rbac>,
    authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Plugin for Escalation {
    fn name(&self) -> &'static str {
        "RBAC"
    }

    async fn validate(&self, admit: &Admit<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(object) = object.filter(|_| admit.kind.group == GROUP) else { return Ok(()) };
        let is_delete = admit.operation == Operation::Delete;
        if is_delete || admit.ctx.user().is_in(MASTERS) || is_by_collector(admit, object) {
            return Ok(());
        }
        match admit.kind.plural {
            "roles" | "clusterroles" => self.role(admit, object).await,
            _ => self.binding(admit, object).await,
        }
    }
}

impl Escalation {
    /// By these rules, and who may overrule them.
    pub fn new(rbac: Arc<Rbac>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { rbac, authorizer }
    }

    async fn role(&self, admit: &Admit<'_>, role: &Object) -> Result<(), Status> {
        if self.may(admit, "escalate", admit.kind.plural, admit.name).await {
            return Ok(());
        }
        self.holds(admit, &defaults::rules(role))?;
        let aggregates =
            |object: &Object| object.at("/aggregationRule").is_some_and(|r| !r.is_null());
        if (aggregates(role) || admit.old.is_some_and(aggregates))
            && self.holds(admit, &covers::everything()).is_err()
        {
            let why = "must have cluster-admin privileges to use the aggregationRule";
            return Err(Status::forbidden(GROUP, admit.kind.plural, role.name(), why));
        }
        Ok(())
    }

    async fn binding(&self, admit: &Admit<'_>, binding: &Object) -> Result<(), Status> {
        let role = binding.at("/roleRef").cloned().unwrap_or(Value::Null);
        let role: RoleRef = serde_json::from_value(role).map_err(Status::internal)?;
        let plural = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
        if self.may(admit, "bind", plural, &role.name).await {
            return Ok(());
        }
        // What was asked for above has brought the rules up to date.
        let rules = self.rbac.rules_by_reference(admit.namespace, &role)?;
        self.holds(admit, &rules)
    }

    /// Whether the user has a verb on a role that no request carries.
    async fn may(&self, admit: &Admit<'_>, verb: &'static str, plural: &str, name: &str) -> bool {
        let attributes = Attributes::Resource(ResourceAttributes {
            verb: verb.into(),
            group: GROUP.into(),
            version: admit.kind.version.into(),
            resource: plural.into(),
            namespace: admit.namespace.into(),
            name: name.into(),
            ..ResourceAttributes::default()
        });
        decide(&*self.authorizer, admit.ctx.user(), &attributes).await.is_ok()
    }

    fn holds(&self, admit: &Admit<'_>, wanted: &[PolicyRule]) -> Result<(), Status> {
        let user = admit.ctx.user();
        let (owned, missing) = self.rbac.rules_of(user, admit.namespace);
        covers::check(user, &owned, wanted).map_err(|mut why| {
            if !missing.is_empty() {
                why = format!("{why}; resolution errors: [{}]", missing.join(", "));
            }
            Status::forbidden(GROUP, admit.kind.plural, admit.name, why)
        })
    }
}

/// Whether an update changes nothing but what the garbage collector needs for a deletion.
fn is_by_collector(admit: &Admit<'_>, object: &Object) -> bool {
    let without = |object: &Object| {
        let mut rest = object.clone();
        for field in ["finalizers", "ownerReferences", "managedFields", "resourceVersion"] {
            rest.remove(&["metadata", field]);
        }
        rest
    };
    admit.old.is_some_and(|old| without(old) == without(object))
}
