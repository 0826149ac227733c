//! Plugins that only work where the server is told so (`--enable-admission-plugins`).

mod always_pull_images;
mod owner_references;
mod pod_node_selector;

use std::sync::Arc;

use super::Plugin;
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

/// The plugins of these names. The error names one that is not there.
pub(super) fn named(
    names: &[String],
    authorizer: &Arc<dyn Authorizer>,
) -> Result<Vec<Arc<dyn Plugin>>, String> {
    let mut plugins: Vec<Arc<dyn Plugin>> = Vec::new();
    for name in names {
        match name.as_str() {
            "AlwaysPullImages" => plugins.push(Arc::new(always_pull_images::AlwaysPullImages)),
            "OwnerReferencesPermissionEnforcement" => plugins
                .push(Arc::new(owner_references::OwnerReferences::new(Arc::clone(authorizer)))),
            "PodNodeSelector" => plugins.push(Arc::new(pod_node_selector::PodNodeSelector)),
            always if ALWAYS.contains(&always) => {}
            unknown => return Err(format!("there is no admission plugin {unknown:?}")),
        }
    }
    Ok(plugins)
}
