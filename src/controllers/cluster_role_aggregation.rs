//! Aggregated cluster roles: writes into each the rules of the roles that its selectors find, when
//! it or any of them changes.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kontiki_api::authz::aggregate::aggregate;
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;

use super::owners;
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;

/// Keeps aggregates.
pub struct Aggregation {
    client: Client,
    roles: Arc<Informer<ClusterRole>>,
}

/// The controller, ready to run. Its keys are names of aggregates.
pub fn controller(context: &LeaderContext, begin: u64) -> Controller<Aggregation> {
    let roles = context.informers.of::<ClusterRole>();
    let reconciler = Aggregation {
        client: context.client_of("clusterrole-aggregation-controller"),
        roles: Arc::clone(&roles),
    };
    let all = Arc::clone(&roles);
    // Any role may belong into any aggregate, and there are few of these.
    Controller::new("clusterrole-aggregation", context, begin, reconciler).watch(
        &roles,
        move |_| {
            let aggregates = all.list().into_iter().filter(|role| role.aggregation_rule.is_some());
            aggregates.map(|role| owners::name(&role.metadata).to_owned()).collect()
        },
    )
}

#[async_trait]
impl Reconcile for Aggregation {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Next, ReconcileError> {
        let Some(role) = self.roles.get("", name) else { return Ok(Next::OnChange) };
        let all = self.roles.list();
        let Some(rules) = aggregate(&role, all.iter().map(|role| &**role)) else {
            return Ok(Next::OnChange);
        };
        if role.rules.as_deref().unwrap_or_default() != rules {
            let new = ClusterRole { rules: Some(rules), ..ClusterRole::clone(&role) };
            let written = self.client.update(&new).await;
            written.map(drop).during(|| format!("aggregating the rules of cluster role {name}"))?;
        }
        Ok(Next::OnChange)
    }
}
