//! Which pods this node does not run, whatever the scheduler said. Pure.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Pod;

/// Kernel settings that a pod may change: they are its own, and harm nobody else.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// What goes before the reason in a status.
const REJECTED: &str = "Pod was rejected: ";

/// Why a pod is not run, in the kubelet's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One word.
    pub reason: Cow<'static, str>,
    /// A sentence.
    pub message: String,
}

impl Refusal {
    /// `why` is a sentence, which the status shows as it is shown for every refusal.
    pub fn of(reason: impl Into<Cow<'static, str>>, why: &str) -> Self {
        Self { reason: reason.into(), message: format!("{REJECTED}{why}") }
    }

    /// The message without what goes before it in statuses.
    pub fn why(&self) -> &str {
        self.message.trim_start_matches(REJECTED)
    }
}

/// Why the pod is not run; none if it is.
pub fn refusal(pod: &Pod) -> Option<Refusal> {
    let spec = pod.spec.as_ref()?;
    let on_host = spec.host_network.unwrap_or(false);
    let sysctls = spec.security_context.as_ref()?.sysctls.as_ref()?;
    let why = sysctls.iter().find_map(|sysctl| {
        // Slashes and dots are the same to the kernel.
        let name = sysctl.name.replace('/', ".");
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return Some(format!("forbidden sysctl: {:?} not allowlisted", sysctl.name));
        }
        let is_networks = name.starts_with("net.") && on_host;
        is_networks.then(|| {
            format!("forbidden sysctl: {:?} not allowed with host net enabled", sysctl.name)
        })
    })?;
    Some(Refusal::of("SysctlForbidden", &why))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn why(host_network: bool, name: &str) -> Option<String> {
        let pod: Pod = serde_json::from_value(json!({ "spec": {
            "hostNetwork": host_network, "containers": [],
            "securityContext": { "sysctls": [{ "name": name, "value": "1" }] },
        }}))
        .unwrap();
        refusal(&pod).map(|refusal| refusal.message)
    }

    #[test]
    fn only_settings_of_the_pods_own_may_be_changed() {
        assert_eq!(why(false, "kernel.shm_rmid_forced"), None);
        assert_eq!(why(false, "net/ipv4/tcp_syncookies"), None);
        assert_eq!(
            why(false, "kernel.msgmax").as_deref(),
            Some("Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted")
        );
        assert!(why(true, "net.ipv4.tcp_syncookies").is_some_and(|why| why.contains("host net")));
        assert_eq!(why(true, "kernel.shm_rmid_forced"), None);
    }
}
