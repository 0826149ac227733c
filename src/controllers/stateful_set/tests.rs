use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::{Value, json};

use super::claims::owned_as_asked;
use super::plan::{Plan, Revision, View, Why, plan};
use super::{identity, owners};

const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);

fn set(spec: Value) -> StatefulSet {
    let mut all = json!({
        "replicas": 3, "serviceName": "db",
        "selector": { "matchLabels": { "app": "db" } },
        "template": { "metadata": { "labels": { "app": "db" } }, "spec": { "containers": [] } },
    });
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": { "name": "db", "namespace": "default", "uid": "u", "generation": 3 },
        "spec": all,
    }))
    .unwrap()
}

/// A pod `ORDINAL REVISION STATE`; states are `ready`, `running`, `pending`, `failed`, `going`.
fn pod(text: &str) -> Arc<Pod> {
    let words: Vec<&str> = text.split(' ').collect();
    let &[ordinal, revision, state] = words.as_slice() else { panic!("{text}") };
    let name = format!("db-{ordinal}");
    let phase = match state {
        "pending" => "Pending",
        "failed" => "Failed",
        _ => "Running",
    };
    let ready = if ["ready", "going"].contains(&state) { "True" } else { "False" };
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "uid": name, "labels": { "controller-revision-hash": revision },
                "deletionTimestamp": (state == "going").then(|| NOW.to_string()),
            },
            "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready }] },
        }))
        .unwrap(),
    )
}

fn planned(spec: Value, pods: &[&str]) -> Plan {
    let revision = |name: &str| Revision {
        name: name.to_owned(),
        template: set(json!({})).spec.unwrap().template,
    };
    let pods = pods.iter().map(|text| pod(text)).collect();
    let view = View { set: set(spec), pods, current: revision("old"), update: revision("new") };
    plan(&view, NOW)
}

/// What is created (`+`, with its revision) and deleted (`-`), in order.
fn steps(plan: &Plan) -> Vec<String> {
    let created = plan
        .create
        .iter()
        .map(|pod| format!("+{} {}", owners::name(&pod.metadata), identity::revision_of(pod)));
    let deleted = plan.delete.iter().map(|(pod, _)| format!("-{}", owners::name(&pod.metadata)));
    created.chain(deleted).collect()
}

#[test]
fn an_ordered_set_goes_one_by_one_and_a_parallel_one_at_once() {
    let ordered = json!({});
    let parallel = json!({ "podManagementPolicy": "Parallel" });
    let one = json!({ "replicas": 1 });
    let one_parallel = json!({ "replicas": 1, "podManagementPolicy": "Parallel" });
    let moved = json!({ "ordinals": { "start": 5 }, "replicas": 2 });
    for (spec, pods, expected) in [
        (&ordered, &[][..], &["+db-0 new"][..]),
        (&ordered, &["0 new pending"], &[]),
        (&ordered, &["0 new running"], &[]),
        (&ordered, &["0 new ready"], &["+db-1 new"]),
        (&ordered, &["0 new going", "1 new ready"], &[]),
        (&ordered, &["1 new ready", "2 new ready"], &["+db-0 new"]),
        (&ordered, &["0 new failed", "1 new ready"], &["-db-0"]),
        (&parallel, &["1 new pending"], &["+db-0 new", "+db-2 new"]),
        (&one, &["0 new ready", "1 new ready", "2 new ready"], &["-db-2"]),
        (&one, &["0 new ready", "1 new ready", "2 new going"], &[]),
        (&one, &["0 new running", "1 new ready"], &[]),
        // Of two that do not serve the lowest must be helped first.
        (&one, &["0 new ready", "1 new running", "2 new running"], &[]),
        (&one, &["0 new ready", "1 new ready", "2 new running"], &["-db-2"]),
        (&one_parallel, &["0 new running", "1 new ready", "2 new running"], &["-db-2", "-db-1"]),
        (&moved, &[], &["+db-5 new"]),
        (&moved, &["0 new ready", "5 new ready", "6 new ready"], &["-db-0"]),
    ] {
        assert_eq!(steps(&planned(spec.clone(), pods)), expected, "{spec} {pods:?}");
    }
}

#[test]
fn an_update_goes_from_the_highest_ordinal_down_to_the_partition() {
    let rolling = |value: Value| json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": value } });
    let plain = rolling(json!({}));
    let part = rolling(json!({ "partition": 2 }));
    let two = rolling(json!({ "maxUnavailable": 2 }));
    let by_hand = json!({ "updateStrategy": { "type": "OnDelete" } });
    let all_old = ["0 old ready", "1 old ready", "2 old ready"];
    for (spec, pods, expected) in [
        (&plain, &all_old[..], &["-db-2"][..]),
        (&plain, &["0 old ready", "1 old ready", "2 new running"], &[]),
        (&plain, &["0 old ready", "1 old ready", "2 new ready"], &["-db-1"]),
        (&plain, &["0 new ready", "1 new ready", "2 new ready"], &[]),
        (&part, &all_old, &["-db-2"]),
        (&part, &["0 old ready", "1 old ready", "2 new ready"], &[]),
        (&part, &["0 old ready", "2 new ready"], &["+db-1 old"]),
        (&two, &all_old, &["-db-2", "-db-1"]),
        (&two, &["0 old ready", "1 old ready", "2 new ready"], &["-db-1", "-db-0"]),
        (&by_hand, &all_old, &[]),
        (&by_hand, &["0 old ready", "1 old ready"], &["+db-2 new"]),
    ] {
        assert_eq!(steps(&planned(spec.clone(), pods)), expected, "{spec} {pods:?}");
    }
    let parallel = json!({
        "podManagementPolicy": "Parallel", "updateStrategy": { "type": "RollingUpdate" },
    });
    let broken = planned(parallel, &["0 old ready", "1 old ready", "2 old running"]);
    assert_eq!(steps(&broken), ["-db-2"], "one that never served is replaced");
    assert!(broken.delete.iter().all(|(_, why)| *why == Why::Outdated));
}

#[test]
fn the_status_counts_by_revision_and_notes_a_finished_update() {
    let status = planned(json!({}), &["0 old ready", "1 old running", "2 new ready"]).status;
    assert_eq!((status.replicas, status.ready_replicas), (3, Some(2)));
    assert_eq!((status.current_replicas, status.updated_replicas), (Some(2), Some(1)));
    assert_eq!(status.available_replicas, Some(2));
    assert_eq!(status.current_revision.as_deref(), Some("old"));
    assert_eq!(status.update_revision.as_deref(), Some("new"));
    assert_eq!(status.observed_generation, Some(3));
    let status = planned(json!({}), &["0 new ready", "1 new ready", "2 new ready"]).status;
    assert_eq!(status.current_revision.as_deref(), Some("new"));
    assert_eq!(status.current_replicas, Some(3));
}

#[test]
fn a_pod_has_the_names_of_its_ordinal_and_its_claims() {
    let templates = json!([{ "metadata": { "name": "data" }, "spec": {} }]);
    let set = set(json!({ "volumeClaimTemplates": templates }));
    let pod = identity::pod(&set, &set.spec.clone().unwrap().template, "r", 4);
    let labels = pod.metadata.labels.unwrap();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "db-4");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "4");
    assert_eq!(labels["controller-revision-hash"], "r");
    let spec = pod.spec.unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-4"), Some("db")));
    let volume = spec.volumes.unwrap().remove(0);
    assert_eq!(volume.name, "data");
    assert_eq!(volume.persistent_volume_claim.unwrap().claim_name, "data-db-4");
    let claim = identity::claims(&set, 4).remove("data").unwrap();
    assert_eq!(claim.metadata.labels.unwrap()["app"], "db");
    for (name, expected) in
        [("db-0", Some(0)), ("db-12", Some(12)), ("db-x", None), ("dbx-1", None), ("db-", None)]
    {
        assert_eq!(identity::ordinal("db", name), expected, "{name}");
    }
}

#[test]
fn claims_are_owned_by_what_they_go_with() {
    let pod = pod("0 new ready");
    for (deleted, scaled, is_condemned, expected) in [
        ("Retain", "Retain", false, &[][..]),
        ("Retain", "Retain", true, &[]),
        ("Delete", "Retain", false, &["u"]),
        ("Delete", "Retain", true, &["u"]),
        ("Retain", "Delete", false, &[]),
        ("Retain", "Delete", true, &["db-0"]),
        ("Delete", "Delete", false, &["u"]),
        ("Delete", "Delete", true, &["db-0"]),
    ] {
        let policy = json!({ "whenDeleted": deleted, "whenScaled": scaled });
        let set = set(json!({ "persistentVolumeClaimRetentionPolicy": policy }));
        let claim = PersistentVolumeClaim::default();
        let changed = owned_as_asked(&set, &pod, &claim, is_condemned).unwrap_or(claim);
        let owners = changed.metadata.owner_references.clone().unwrap_or_default();
        let uids: Vec<&str> = owners.iter().map(|owner| owner.uid.as_str()).collect();
        assert_eq!(uids, expected, "{deleted} {scaled} {is_condemned}");
        assert_eq!(owned_as_asked(&set, &pod, &changed, is_condemned), None, "and that is all");
    }
}

/// Found when a claim stayed: a reconcile while the pod terminated took the pod's ownership back.
#[test]
fn a_claim_goes_on_belonging_to_a_pod_scaled_away_while_that_terminates() {
    let policy = json!({ "whenScaled": "Delete" });
    let set = set(json!({
        "replicas": 1, "ordinals": { "start": 2 }, "persistentVolumeClaimRetentionPolicy": policy,
    }));
    let wanted: Vec<i32> = (0..6).filter(|ordinal| identity::is_wanted(&set, *ordinal)).collect();
    assert_eq!(wanted, [2]);
    let going = pod("3 new going");
    let ordinal = identity::ordinal("db", owners::name(&going.metadata)).unwrap();
    let condemned = !identity::is_wanted(&set, ordinal);
    let claim = PersistentVolumeClaim::default();
    let owned = owned_as_asked(&set, &going, &claim, condemned).unwrap();
    assert_eq!(owned_as_asked(&set, &going, &owned, condemned), None);
}
