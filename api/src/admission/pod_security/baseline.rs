//! The standard `baseline`: no known way from a pod to its node.

use serde_json::Value;

use super::Violation;
use super::spec::{
    Pod, containers_named, context_of, list_of, name_of, plural, quoted, setters, sorted, uses,
};

type Check = fn(Pod<'_>, u32) -> Option<Violation>;

/// The checks by their names, since the release in which there are such.
const CHECKS: [(&str, u32, Check); 12] = [
    ("appArmorProfile", 0, app_armor),
    ("capabilities_baseline", 0, capabilities),
    ("hostNamespaces", 0, host_namespaces),
    ("hostPathVolumes", 0, host_paths),
    ("hostPorts", 0, host_ports),
    ("hostProbesAndHostLifecycle", 34, hosts),
    ("privileged", 0, privileged),
    ("procMount", 0, proc_mount_unless_own_users),
    ("seLinuxOptions", 0, se_linux),
    ("seccompProfile_baseline", 0, seccomp),
    ("sysctls", 0, sysctls),
    ("windowsHostProcess", 0, windows_host_process),
];

/// What a pod violates of the standard of a release, without what stricter checks stand for.
pub(super) fn check(pod: &Pod<'_>, version: u32, without: &[&str]) -> Vec<Violation> {
    let is_asked =
        |(name, since, _): &&(&str, u32, Check)| *since <= version && !without.contains(name);
    CHECKS.iter().filter(is_asked).filter_map(|(_, _, check)| check(*pod, version)).collect()
}

/// What containers may do that ask for nothing.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Settings of the kernel that are a pod's own, since the release in which they are allowed.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.tcp_wmem", 32),
];

/// The types of SELinux that confine, likewise.
const SE_LINUX_TYPES: [(&str, u32); 5] = [
    ("", 0),
    ("container_engine_t", 31),
    ("container_init_t", 0),
    ("container_kvm_t", 0),
    ("container_t", 0),
];

fn is_allowed(list: &[(&str, u32)], version: u32, name: &str) -> bool {
    list.iter().any(|(allowed, since)| *allowed == name && *since <= version)
}

fn app_armor(pod: Pod<'_>, _version: u32) -> Option<Violation> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let is_bad = |context: &Value| {
        context["appArmorProfile"]["type"]
            .as_str()
            .is_some_and(|kind| !["RuntimeDefault", "Localhost"].contains(&kind))
    };
    let bad_type = |context: &Value| {
        let kind = context["appArmorProfile"]["type"].as_str().unwrap_or_default();
        format!("{kind:?}")
    };
    let mut bad = Vec::new();
    let containers = pod.containers_that(|container| is_bad(context_of(container)));
    if let Some(who) = setters(is_bad(pod.context()), &containers) {
        let contexts = pod.containers().map(context_of).chain([pod.context()]);
        let kinds: Vec<String> = contexts.filter(|one| is_bad(one)).map(bad_type).collect();
        let kinds = sorted(kinds.iter().map(String::as_str)).join(", ");
        bad.push(format!("{who} must not set securityContext.appArmorProfile.type to {kinds}"));
    }
    let is_good = |value: &str| {
        value.is_empty() || value == "runtime/default" || value.starts_with("localhost/")
    };
    let annotations = pod.metadata["annotations"].as_object().into_iter().flatten();
    let annotations = annotations.filter_map(|(key, value)| {
        let value = value.as_str()?;
        let is_bad = key.starts_with(ANNOTATION) && !is_good(value);
        is_bad.then(|| format!("annotation {key}={value:?}"))
    });
    let of_annotations: Vec<String> = annotations.collect();
    let count = of_annotations.len() + bad.len();
    bad.extend(of_annotations);
    (count > 0).then(|| Violation::new(plural("forbidden AppArmor profile", count), bad.join(", ")))
}

fn capabilities(pod: Pod<'_>, _version: u32) -> Option<Violation> {
    let bad = |container: &Value| -> Vec<String> {
        let added = list_of(&context_of(container)["capabilities"]["add"]).iter();
        let added = added.filter_map(Value::as_str).filter(|one| !CAPABILITIES.contains(one));
        added.map(str::to_owned).collect()
    };
    let containers = pod.containers_that(|container| !bad(container).is_empty());
    let all: Vec<String> = pod.containers().flat_map(bad).collect();
    (!containers.is_empty()).then(|| {
        let detail = format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers_named(&containers),
            quoted(sorted(all.iter().map(String::as_str)))
        );
        Violation::new("non-default capabilities", detail)
    })
}

fn host_namespaces(pod: Pod<'_>, _version: u32) -> Option<Violation> {
    let fields = ["hostNetwork", "hostPID", "hostIPC"];
    let set = fields.into_iter().filter(|field| pod.spec[*field] == true);
    let set: Vec<String> = set.map(|field| format!("{field}=true")).collect();
    (!set.is_empty()).then(|| Violation::new("host namespaces", set.join(", ")))
}

fn host_paths(pod: Pod<'_>, _version: u32) -> Option<Violation> {
    let volumes = list_of(&pod.spec["volumes"]).iter();
    let names: Vec<&str> =
        volumes.filter(|volume| volume["hostPath"].is_object()).map(name_of).collect();
    (!names.is_empty()).then(|| {
        let detail = format!("{} {}", plural("volume", names.len()), quoted(&names));
        Violation::new("hostPath volumes", detail)
    })
}

fn host_ports(pod: Pod<'_>, _version: u32) -> Option<Violation> {
    let ports = |container: &Value| -> Vec<String> {
        let ports = list_of(&container["ports"]).iter();
        let ports = ports.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0);
        ports.map(|port| port.to_string()).collect()
    };
    let containers = pod.containers_that(|container| !ports(container).is_empty());
    let all: Vec<String> = pod.containers().flat_map(ports).collect();
    let all = sorted(all.iter().map(String::as_str));
    (!containers.is_empty()).then(|| {
        let (who, verb) = (containers_named(&containers), uses(containers.len()));
        let what = plural("hostPort", all.len());
        Violation::new("hostPort", format!("{who} {verb} {what} {}", all.join(", ")))
    })
}

fn hosts(pod: Pod<'_>, _version: u32) -> Option<Violation> {
    const HANDLERS: [&str; 5] = [
        "/livenessProbe",
        "/readinessProbe",
        "/startupProbe",
        "/lifecycle/postStart",
        "/lifecycle/preStop",
    ];
    let hosts = |container: &Value| -> Vec<String> {
        let handlers = HANDLERS.iter().filter_map(|pointer| container.pointer(pointer));
        let hosts = handlers.flat_map(|handler| {
            ["httpGet", "tcpSocket"].into_iter().filter_map(|act| handler[act]["host"].as_str())
        });
        hosts.filter(|host| !host.is_empty()).map(str::to_owned).collect()
    };
    let containers = sorted(pod.containers_that(|container| !hosts(container).is_empty()));
    let all: Vec<String> = pod.containers().flat_map(hosts).collect();
    let all = sorted(all.iter().map(String::as_str));
    (!containers.is_empty()).then(|| {
        let (who, verb) = (containers_named(&containers), uses(containers.len()));
        let what = plural("probe or lifecycle host", all.len());
        let detail = format!("{who} {verb} {what} {}", quoted(&all));
        Violation::new("probe or lifecycle host", detail)
    })
}

fn privileged(pod: Pod<'_>, _version: u32) -> Option<Violation> {
    let containers = pod.containers_that(|container| context_of(container)["privileged"] == true);
    (!containers.is_empty()).then(|| {
        let who = containers_named(&containers);
        Violation::new("privileged", format!("{who} must not set securityContext.privileged=true"))
    })
}

/// Since 1.35 who has users of its own may see all of `/proc`.
fn proc_mount_unless_own_users(pod: Pod<'_>, version: u32) -> Option<Violation> {
    const OWN_USERS_SINCE: u32 = 35;
    if version >= OWN_USERS_SINCE && pod.has_own_users() {
        return None;
    }
    proc_mount(pod, version)
}

/// Also a check of `restricted`.
pub(super) fn proc_mount(pod: Pod<'_>, _version: u32) -> Option<Violation> {
    let mount = |container: &Value| {
        let mount = context_of(container)["procMount"].as_str().filter(|one| *one != "Default");
        mount.map(str::to_owned)
    };
    let containers = pod.containers_that(|container| mount(container).is_some());
    let mounts: Vec<String> = pod.containers().filter_map(mount).collect();
    (!containers.is_empty()).then(|| {
        let (who, mounts) =
            (containers_named(&containers), quoted(sorted(mounts.iter().map(String::as_str))));
        let detail = format!("{who} must not set securityContext.procMount to {mounts}");
        Violation::new("procMount", detail)
    })
}

fn se_linux(pod: Pod<'_>, version: u32) -> Option<Violation> {
    let text = |context: &Value, field: &str| {
        context["seLinuxOptions"][field].as_str().unwrap_or_default().to_owned()
    };
    let has_bad_type =
        |context: &Value| !is_allowed(&SE_LINUX_TYPES, version, &text(context, "type"));
    let sets = |context: &Value, field: &str| !text(context, field).is_empty();
    let is_bad =
        |context: &Value| has_bad_type(context) || sets(context, "user") || sets(context, "role");
    let containers = pod.containers_that(|container| is_bad(context_of(container)));
    let who = setters(is_bad(pod.context()), &containers)?;
    let contexts: Vec<&Value> = pod.containers().map(context_of).chain([pod.context()]).collect();
    let types = contexts.iter().filter(|context| has_bad_type(context));
    let types: Vec<String> = types.map(|context| text(context, "type")).collect();
    let types = sorted(types.iter().map(String::as_str));
    let mut bad = Vec::new();
    if !types.is_empty() {
        bad.push(format!("{} {}", plural("type", types.len()), quoted(&types)));
    }
    for field in ["user", "role"] {
        if contexts.iter().any(|context| sets(context, field)) {
            bad.push(format!("{field} may not be set"));
        }
    }
    let bad = bad.join("; ");
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {bad}");
    Some(Violation::new("seLinuxOptions", detail))
}

fn seccomp(pod: Pod<'_>, version: u32) -> Option<Violation> {
    const FIELDS_SINCE: u32 = 19;
    if version < FIELDS_SINCE { seccomp_annotations(pod) } else { seccomp_fields(pod) }
}

/// Where a profile is said that is none of the good ones. Also a check of `restricted`.
pub(super) fn seccomp_fields(pod: Pod<'_>) -> Option<Violation> {
    let bad = |context: &Value| {
        let kind = context["seccompProfile"]["type"].as_str();
        kind.filter(|kind| !["RuntimeDefault", "Localhost"].contains(kind)).map(str::to_owned)
    };
    let containers = pod.containers_that(|container| bad(context_of(container)).is_some());
    let who = setters(bad(pod.context()).is_some(), &containers)?;
    let contexts = pod.containers().map(context_of).chain([pod.context()]);
    let kinds: Vec<String> = contexts.filter_map(bad).collect();
    let kinds = quoted(sorted(kinds.iter().map(String::as_str)));
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {kinds}");
    Some(Violation::new("seccompProfile", detail))
}

fn seccomp_annotations(pod: Pod<'_>) -> Option<Violation> {
    let is_of_pod = |key: &str| {
        key == "seccomp.security.alpha.kubernetes.io/pod"
            || key.starts_with("container.seccomp.security.alpha.kubernetes.io/")
    };
    let is_good = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let annotations = pod.metadata["annotations"].as_object().into_iter().flatten();
    let bad: Vec<String> = annotations
        .filter_map(|(key, value)| {
            let value = value.as_str()?;
            (is_of_pod(key) && !is_good(value)).then(|| format!("annotation {key}={value:?}"))
        })
        .collect();
    (!bad.is_empty()).then(|| Violation::new("seccompProfile", bad.join(", ")))
}

fn sysctls(pod: Pod<'_>, version: u32) -> Option<Violation> {
    let all = list_of(&pod.context()["sysctls"]).iter().map(name_of);
    let bad: Vec<&str> = all.filter(|name| !is_allowed(&SYSCTLS, version, name)).collect();
    (!bad.is_empty()).then(|| Violation::new("forbidden sysctls", bad.join(", ")))
}

fn windows_host_process(pod: Pod<'_>, _version: u32) -> Option<Violation> {
    let is_set = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let containers = pod.containers_that(|container| is_set(context_of(container)));
    let who = setters(is_set(pod.context()), &containers)?;
    let detail = format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    Some(Violation::new("hostProcess", detail))
}
