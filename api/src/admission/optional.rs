//! Plugins that only work where the server is told so (`--enable-admission-plugins`).

mod always_pull_images;
mod event_rate_limit;
mod owner_references;
mod pod_node_selector;

use std::sync::Arc;

use super::{AdmissionConfiguration, Plugin};
use crate::authz::Authorizer;

/// The names of those that always work: naming them changes nothing.
const ALWAYS: [&str; 19] = [
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "DefaultStorageClass",
    "LimitRanger",
    "MutatingAdmissionWebhook",
    "NamespaceLifecycle",
    "NodeRestriction",
    "PodSecurity",
    "PodTopologyLabels",
    "Priority",
    "ResourceQuota",
    "RuntimeClass",
    "ServiceAccount",
    "StorageObjectInUseProtection",
    "TaintNodesByCondition",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
];

/// The plugins of these names, told what the configuration says. The error names one that is not
/// there, or is told what it does not understand.
pub(super) fn named(
    names: &[String],
    configuration: &AdmissionConfiguration,
    authorizer: &Arc<dyn Authorizer>,
) -> Result<Vec<Arc<dyn Plugin>>, String> {
    if let Some(other) = configuration.names().find(|name| *name != event_rate_limit::NAME) {
        return Err(format!("the admission plugin {other:?} takes no configuration here"));
    }
    let mut plugins: Vec<Arc<dyn Plugin>> = Vec::new();
    for name in names {
        match name.as_str() {
            "AlwaysPullImages" => plugins.push(Arc::new(always_pull_images::AlwaysPullImages)),
            event_rate_limit::NAME => plugins.push(Arc::new(event_rate_limit(configuration)?)),
            "OwnerReferencesPermissionEnforcement" => plugins
                .push(Arc::new(owner_references::OwnerReferences::new(Arc::clone(authorizer)))),
            "PodNodeSelector" => plugins.push(Arc::new(pod_node_selector::PodNodeSelector)),
            always if ALWAYS.contains(&always) => {}
            unknown => return Err(format!("there is no admission plugin {unknown:?}")),
        }
    }
    Ok(plugins)
}

fn event_rate_limit(
    configuration: &AdmissionConfiguration,
) -> Result<event_rate_limit::EventRateLimit, String> {
    const NAME: &str = event_rate_limit::NAME;
    let told = configuration.of(NAME);
    let told =
        told.ok_or_else(|| format!("the admission plugin {NAME:?} needs a configuration"))?;
    event_rate_limit::EventRateLimit::new(told)
        .map_err(|why| format!("the admission plugin {NAME:?}: {why}"))
}
