//! [`Priority`]: which group comes first in discovery, and which version of it is preferred.

use crate::object::Object;

/// The higher the number, the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority {
    /// Of the group, at least.
    pub group: i64,
    /// Of the version within it.
    pub version: i64,
}

/// Of kinds that definitions bring along.
pub const CUSTOM: Priority = Priority { group: 1000, version: 100 };

/// Of the registry of all versions: before all that it registers.
const REGISTRATION: Priority = Priority { group: 20_000, version: 1 };

/// Upstream's groups with their priorities.
const GROUPS: [(&str, i64); 21] = [
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("resource.k8s.io", 15_900),
    ("storagemigration.k8s.io", 15_800),
];

impl Priority {
    /// That of a version of one of Kubernetes' own groups.
    pub fn built_in(group: &str, version: &str) -> Option<Self> {
        let (_, of_group) = GROUPS.iter().find(|(name, _)| *name == group)?;
        let of_version = match (group, version) {
            ("", _) => 1,
            ("autoscaling", "v2") => 30,
            ("flowcontrol.apiserver.k8s.io", "v1") => 21,
            (_, version) if version.contains("alpha") => 9,
            (_, version) if version.contains("beta") => 12,
            _ => 15,
        };
        Some(Self { group: *of_group, version: of_version })
    }

    /// That of a version that no APIService is about.
    pub(super) fn unregistered(group: &str, version: &str) -> Self {
        match group {
            "apiregistration.k8s.io" => REGISTRATION,
            _ => Self::built_in(group, version).unwrap_or(CUSTOM),
        }
    }

    /// What an APIService says.
    pub(crate) fn of(service: &Object) -> Self {
        let number = |pointer| service.i64_at(pointer).unwrap_or_default();
        Self {
            group: number("/spec/groupPriorityMinimum"),
            version: number("/spec/versionPriority"),
        }
    }
}
