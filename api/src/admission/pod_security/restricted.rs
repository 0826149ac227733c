//! The standard `restricted`: what a careful pod says of itself.

use serde_json::Value;

use super::Violation;
use super::baseline::{proc_mount, seccomp_fields};
use super::spec::{
    Pod, containers_named, context_of, list_of, name_of, plural, quoted, setters, sorted, uses,
};

type Check = fn(Pod<'_>, u32) -> Option<Violation>;

/// The checks, since the release in which there are such, and the check of `baseline` that each
/// stands for.
const CHECKS: [(u32, &str, Check); 7] = [
    (8, "", privilege_escalation),
    (22, "capabilities_baseline", capabilities),
    (OWN_USERS_SINCE, "procMount", proc_mount),
    (0, "hostPathVolumes", volumes),
    (0, "", run_as_non_root),
    (23, "", run_as_user),
    (19, "seccompProfile_baseline", seccomp),
];
/// Since when a pod for Windows need not say what means nothing there.
const WINDOWS_SINCE: u32 = 25;
/// Since when a pod with users of its own may be root among them.
const OWN_USERS_SINCE: u32 = 35;

/// Each kind of volume whose content is a pod's own affair.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// The checks of `baseline` that these stand for.
pub(super) fn overrides(version: u32) -> Vec<&'static str> {
    CHECKS.iter().filter(|(since, ..)| *since <= version).map(|(_, name, _)| *name).collect()
}

/// What a pod violates of the standard of a release, beside what it violates of `baseline`.
pub(super) fn check(pod: &Pod<'_>, version: u32) -> Vec<Violation> {
    let asked = CHECKS.iter().filter(|(since, ..)| *since <= version);
    asked.filter_map(|(_, _, check)| check(*pod, version)).collect()
}

/// Whether a pod need not answer what is asked of Linux.
fn is_elsewhere(pod: Pod<'_>, version: u32) -> bool {
    version >= WINDOWS_SINCE && pod.is_windows()
}

fn privilege_escalation(pod: Pod<'_>, version: u32) -> Option<Violation> {
    if is_elsewhere(pod, version) {
        return None;
    }
    let is_bad = |container: &Value| context_of(container)["allowPrivilegeEscalation"] != false;
    let containers = pod.containers_that(is_bad);
    (!containers.is_empty()).then(|| {
        let who = containers_named(&containers);
        let detail = format!("{who} must set securityContext.allowPrivilegeEscalation=false");
        Violation::new("allowPrivilegeEscalation != false", detail)
    })
}

fn capabilities(pod: Pod<'_>, version: u32) -> Option<Violation> {
    if is_elsewhere(pod, version) {
        return None;
    }
    let drops_all = |container: &Value| {
        let dropped = list_of(&context_of(container)["capabilities"]["drop"]);
        dropped.iter().any(|one| one == "ALL")
    };
    let added = |container: &Value| -> Vec<String> {
        let added = list_of(&context_of(container)["capabilities"]["add"]).iter();
        let added = added.filter_map(Value::as_str).filter(|one| *one != "NET_BIND_SERVICE");
        added.map(str::to_owned).collect()
    };
    let mut details = Vec::new();
    let keeping = pod.containers_that(|container| !drops_all(container));
    if !keeping.is_empty() {
        let who = containers_named(&keeping);
        details.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    let adding = pod.containers_that(|container| !added(container).is_empty());
    if !adding.is_empty() {
        let all: Vec<String> = pod.containers().flat_map(added).collect();
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers_named(&adding),
            quoted(sorted(all.iter().map(String::as_str)))
        ));
    }
    (!details.is_empty()).then(|| Violation::new("unrestricted capabilities", details.join("; ")))
}

fn volumes(pod: Pod<'_>, _version: u32) -> Option<Violation> {
    let source = |volume: &Value| -> Option<String> {
        let fields = volume.as_object()?;
        let source = fields.iter().find(|(field, value)| *field != "name" && !value.is_null());
        let source = source.map_or("unknown", |(field, _)| field.as_str());
        (!VOLUMES.contains(&source)).then(|| source.to_owned())
    };
    let all = list_of(&pod.spec["volumes"]);
    let bad = all.iter().filter_map(|volume| Some((name_of(volume), source(volume)?)));
    let (names, sources): (Vec<&str>, Vec<String>) = bad.unzip();
    let sources = sorted(sources.iter().map(String::as_str));
    (!names.is_empty()).then(|| {
        let detail = format!(
            "{} {} {} {} {}",
            plural("volume", names.len()),
            quoted(&names),
            uses(names.len()),
            plural("restricted volume type", sources.len()),
            quoted(&sources)
        );
        Violation::new("restricted volume types", detail)
    })
}

fn run_as_non_root(pod: Pod<'_>, version: u32) -> Option<Violation> {
    if version >= OWN_USERS_SINCE && pod.has_own_users() {
        return None;
    }
    let said = |context: &Value| context["runAsNonRoot"].as_bool();
    let reason = "runAsNonRoot != true";
    let bad = pod.containers_that(|container| said(context_of(container)) == Some(false));
    let of_pod = said(pod.context());
    if let Some(who) = setters(of_pod == Some(false), &bad) {
        let detail = format!("{who} must not set securityContext.runAsNonRoot=false");
        return Some(Violation::new(reason, detail));
    }
    let silent = pod.containers_that(|container| said(context_of(container)).is_none());
    (of_pod.is_none() && !silent.is_empty()).then(|| {
        let who = containers_named(&silent);
        let detail = format!("pod or {who} must set securityContext.runAsNonRoot=true");
        Violation::new(reason, detail)
    })
}

fn run_as_user(pod: Pod<'_>, version: u32) -> Option<Violation> {
    if version >= OWN_USERS_SINCE && pod.has_own_users() {
        return None;
    }
    let is_root = |context: &Value| context["runAsUser"] == 0;
    let containers = pod.containers_that(|container| is_root(context_of(container)));
    let who = setters(is_root(pod.context()), &containers)?;
    Some(Violation::new("runAsUser=0", format!("{who} must not set runAsUser=0")))
}

fn seccomp(pod: Pod<'_>, version: u32) -> Option<Violation> {
    if is_elsewhere(pod, version) {
        return None;
    }
    if let Some(violation) = seccomp_fields(pod) {
        return Some(violation);
    }
    let says = |context: &Value| context["seccompProfile"].is_object();
    let silent = pod.containers_that(|container| !says(context_of(container)));
    (!says(pod.context()) && !silent.is_empty()).then(|| {
        let who = containers_named(&silent);
        let detail = format!(
            "pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
             \"Localhost\""
        );
        Violation::new("seccompProfile", detail)
    })
}
