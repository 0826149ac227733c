use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::backoff::Backoff;
use super::placement::{self, Wish};
use super::plan::{BURST, Ended, Plan, View, plan};
use crate::controllers::owners;

const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);

fn set(strategy: Value, template_spec: Value) -> DaemonSet {
    serde_json::from_value(json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": "agent", "namespace": "default", "uid": "u", "generation": 4 },
        "spec": {
            "selector": { "matchLabels": { "app": "agent" } },
            "updateStrategy": strategy,
            "template": { "metadata": { "labels": { "app": "agent" } }, "spec": template_spec },
        },
    }))
    .unwrap()
}

fn plain() -> DaemonSet {
    set(json!({ "type": "OnDelete" }), json!({ "containers": [] }))
}

fn rolling(unavailable: Value, surge: Value) -> DaemonSet {
    let rolling = json!({ "maxUnavailable": unavailable, "maxSurge": surge });
    let strategy = json!({ "type": "RollingUpdate", "rollingUpdate": rolling });
    set(strategy, json!({ "containers": [] }))
}

fn node(name: &str, taints: Value) -> Arc<Node> {
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": { "disk": if name == "a" { "ssd" } else { "hdd" } } },
        "spec": { "taints": taints },
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

fn nodes(names: &[&str]) -> Vec<Arc<Node>> {
    names.iter().map(|name| node(name, json!([]))).collect()
}

/// A pod, `name` is `NODE-HASH` or `NODE-HASH-MORE`; in the state that the letters say: `r`eady,
/// `p`ending, `f`ailed, `s`ucceeded, `t`erminating.
fn pod(name: &str, state: &str, created: i64) -> Arc<Pod> {
    let mut parts = name.split('-');
    let (node, hash) = (parts.next().unwrap(), parts.next().unwrap());
    let phase = match state {
        "p" => "Pending",
        "f" => "Failed",
        "s" => "Succeeded",
        _ => "Running",
    };
    let since = NOW + SignedDuration::from_secs(created);
    let ready = if state == "r" || state == "t" { "True" } else { "False" };
    let mut pod: Pod = serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "uid": name,
            "creationTimestamp": since.to_string(),
            "labels": { "app": "agent", "controller-revision-hash": hash },
        },
        "spec": { "nodeName": node, "containers": [] },
        "status": {
            "phase": phase,
            "conditions": [
                { "type": "Ready", "status": ready, "lastTransitionTime": since.to_string() },
            ],
        },
    }))
    .unwrap();
    pod.metadata.deletion_timestamp = (state == "t").then_some(Time(NOW));
    Arc::new(pod)
}

fn view(set: DaemonSet, nodes: Vec<Arc<Node>>, pods: &[(&str, &str)]) -> View {
    let pods =
        (0_i64..).zip(pods).map(|(age, (name, state))| pod(name, state, age - 100)).collect();
    View { set, nodes, pods, hash: "new".to_owned() }
}

fn decide(view: &View) -> Plan {
    plan(view, &Backoff::default(), NOW)
}

fn deleted(plan: &Plan) -> Vec<&str> {
    plan.delete.iter().map(|pod| owners::name(&pod.metadata)).collect()
}

#[test]
fn a_node_gets_one_pod_and_keeps_one() {
    let pods = [("a-new", "r"), ("b-new", "t"), ("c-new", "r"), ("c-new-2", "r"), ("d-new", "p")];
    let plan = decide(&view(plain(), nodes(&["a", "b", "c", "d", "e"]), &pods));
    assert_eq!(plan.create, ["e"], "on b the old pod still goes");
    assert_eq!(deleted(&plan), ["c-new-2"], "the younger of two");
    let status = &plan.status;
    assert_eq!(status.desired_number_scheduled, 5);
    assert_eq!(status.current_number_scheduled, 4);
    assert_eq!(status.number_ready, 3);
    assert_eq!((status.number_available, status.number_unavailable), (Some(3), Some(2)));
    assert_eq!(status.updated_number_scheduled, Some(4));
    assert_eq!(status.observed_generation, Some(4));
}

#[test]
fn taints_and_selectors_choose_the_nodes() {
    let taint = |effect: &str| json!([{ "key": "k", "effect": effect }]);
    let cordon = json!([{ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }]);
    let lost = json!([{ "key": "node.kubernetes.io/unreachable", "effect": "NoExecute" }]);
    let offline =
        json!([{ "key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule" }]);
    for (spec, taints, expected) in [
        (json!({}), json!([]), Wish::Run),
        (json!({}), taint("NoSchedule"), Wish::Keep),
        (json!({}), taint("NoExecute"), Wish::Leave),
        (json!({}), taint("PreferNoSchedule"), Wish::Run),
        (json!({}), cordon, Wish::Run),
        (json!({}), lost, Wish::Run),
        (json!({}), offline.clone(), Wish::Keep),
        (json!({ "hostNetwork": true }), offline, Wish::Run),
        (json!({ "tolerations": [{ "operator": "Exists" }] }), taint("NoExecute"), Wish::Run),
        (json!({ "nodeSelector": { "disk": "ssd" } }), json!([]), Wish::Run),
        (json!({ "nodeSelector": { "disk": "hdd" } }), json!([]), Wish::Leave),
        (json!({ "nodeName": "b" }), json!([]), Wish::Leave),
    ] {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod = placement::new_pod(&set(json!({}), spec.clone()), "new");
        let wish = placement::wish(&pod, &node("a", taints.clone()));
        assert_eq!(wish, expected, "{spec} on a node with {taints}");
    }
}

#[test]
fn pods_that_may_not_stay_are_deleted_and_counted_as_misscheduled() {
    let taint = |effect: &str| json!([{ "key": "k", "effect": effect }]);
    let nodes = vec![node("a", taint("NoSchedule")), node("b", taint("NoExecute"))];
    let plan = decide(&view(plain(), nodes, &[("a-new", "r"), ("b-new", "r"), ("gone-new", "r")]));
    assert_eq!(deleted(&plan), ["b-new"], "one of a node that is gone is not for this controller");
    assert_eq!(plan.status.number_misscheduled, 2);
    assert_eq!(plan.status.desired_number_scheduled, 0);
}

#[test]
fn a_pod_that_waits_for_a_node_that_is_gone_is_deleted() {
    let mut waiting = placement::new_pod(&plain(), "new");
    placement::tie(&mut waiting, "gone");
    waiting.metadata.name = Some("waiting".to_owned());
    assert_eq!(placement::node_of(&waiting), Some("gone"));
    let mut view = view(plain(), Vec::new(), &[]);
    view.pods.push(Arc::new(waiting));
    assert_eq!(deleted(&decide(&view)), ["waiting"]);
}

#[test]
fn ended_pods_are_replaced_failed_ones_with_backoff() {
    let view = view(plain(), nodes(&["a", "b"]), &[("a-new", "f"), ("b-new", "s")]);
    let first = decide(&view);
    assert_eq!(deleted(&first), ["a-new", "b-new"]);
    assert!(
        matches!(&first.ended[..], [Ended::Failed(_, a), Ended::Succeeded(_, b)] if a == "a" && b == "b")
    );
    let mut backoff = Backoff::default();
    backoff.note("a", NOW);
    let second = plan(&view, &backoff, NOW);
    assert_eq!(deleted(&second), ["b-new"]);
    assert_eq!(second.again_after, Some(Duration::from_secs(1)));
}

#[test]
fn an_update_replaces_no_more_pods_than_may_be_missing() {
    let pods = [("a-old", "r"), ("b-old", "r"), ("c-old", "r"), ("d-old", "r")];
    let on = |set: DaemonSet, pods: &[(&str, &str)]| {
        let plan = decide(&view(set, nodes(&["a", "b", "c", "d"]), pods));
        assert!(plan.create.is_empty());
        deleted(&plan).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(on(plain(), &pods).is_empty(), "on delete nothing moves by itself");
    assert_eq!(on(rolling(json!(1), json!(0)), &pods), ["a-old"]);
    assert_eq!(on(rolling(json!("50%"), json!(0)), &pods), ["a-old", "b-old"]);
    let under_way = [("a-new", "p"), ("b-old", "r"), ("c-old", "r"), ("d-old", "r")];
    assert!(on(rolling(json!(1), json!(0)), &under_way).is_empty(), "the new one must serve first");
    let broken = [("a-new", "p"), ("b-old", "p"), ("c-old", "r"), ("d-old", "r")];
    assert_eq!(on(rolling(json!(1), json!(0)), &broken), ["b-old"], "what serves nobody may go");
    let done = [("a-new", "r"), ("b-new", "r"), ("c-new", "r"), ("d-new", "r")];
    assert!(on(rolling(json!(1), json!(0)), &done).is_empty());
}

#[test]
fn an_update_with_surge_starts_the_new_pod_first() {
    let step = |pods: &[(&str, &str)]| {
        let plan = decide(&view(rolling(json!(0), json!(1)), nodes(&["a", "b"]), pods));
        let deleted = deleted(&plan).into_iter().map(str::to_owned).collect::<Vec<_>>();
        (plan.create, deleted)
    };
    let none = Vec::<String>::new;
    let one = |name: &str| vec![name.to_owned()];
    assert_eq!(step(&[("a-old", "r"), ("b-old", "r")]), (one("a"), none()));
    assert_eq!(step(&[("a-old", "r"), ("a-new", "p"), ("b-old", "r")]), (none(), none()));
    assert_eq!(step(&[("a-old", "r"), ("a-new", "r"), ("b-old", "r")]), (none(), one("a-old")));
    assert_eq!(step(&[("a-new", "r"), ("b-old", "r")]), (one("b"), none()));
    assert_eq!(
        step(&[("a-old", "p"), ("b-old", "r")]),
        (vec!["a".to_owned(), "b".to_owned()], none()),
        "beside a pod that does not serve, a new one costs nothing"
    );
    assert_eq!(
        step(&[("a-old", "p"), ("a-new", "p"), ("b-new", "r")]),
        (none(), one("a-old")),
        "of two that do not serve the new one stays"
    );
}

#[test]
fn an_update_waits_until_a_ready_pod_has_been_ready_for_long_enough() {
    let mut slow = rolling(json!(1), json!(0));
    slow.spec.as_mut().unwrap().min_ready_seconds = Some(120);
    let plan = decide(&view(slow, nodes(&["a", "b"]), &[("a-new", "r"), ("b-old", "r")]));
    assert!(plan.delete.is_empty() || deleted(&plan) == ["b-old"]);
    assert_eq!(plan.status.number_ready, 2);
    assert_eq!(plan.status.number_available, None);
    assert_eq!(plan.again_after, Some(Duration::from_secs(20)), "the older one is available first");
}

#[test]
fn one_reconcile_creates_no_more_than_a_burst() {
    let names: Vec<String> = (0..BURST + 10).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(decide(&view(plain(), nodes(&names), &[])).create.len(), BURST);
}

#[test]
fn a_daemon_pod_carries_its_revision_its_tolerations_and_its_node() {
    let mut set = set(json!({}), json!({ "containers": [], "tolerations": [{ "key": "k" }] }));
    let generation = "deprecated.daemonset.template.generation".to_owned();
    set.metadata.annotations = Some(BTreeMap::from([(generation, "7".to_owned())]));
    let mut pod = placement::new_pod(&set, "abc");
    placement::tie(&mut pod, "a");
    let labels = pod.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["controller-revision-hash"], "abc");
    assert_eq!(labels["pod-template-generation"], "7");
    assert_eq!(placement::node_of(&pod), Some("a"));
    let tolerations = pod.spec.unwrap().tolerations.unwrap();
    assert_eq!(tolerations.len(), 7, "its own and six by nature");
}
