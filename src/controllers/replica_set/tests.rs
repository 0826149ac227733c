use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodSpec, PodStatus, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};

use super::plan::{self, Failure, Scale};
use crate::controllers::{claims, owners, pod_control};

const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);

fn web() -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), "web".to_owned())])
}

fn set(replicas: i32) -> ReplicaSet {
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some("web".to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some("set-uid".to_owned()),
            generation: Some(3),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            selector: LabelSelector { match_labels: Some(web()), ..LabelSelector::default() },
            template: Some(PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(web()), ..ObjectMeta::default() }),
                spec: None,
            }),
            ..ReplicaSetSpec::default()
        }),
        status: None,
    }
}

fn selector() -> LabelSelector {
    set(1).spec.unwrap().selector
}

struct Make(Pod);

fn pod(name: &str) -> Make {
    Make(Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            uid: Some(name.to_owned()),
            labels: Some(web()),
            owner_references: Some(vec![owners::controller_reference(&set(1))]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec::default()),
        status: Some(PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() }),
    })
}

impl Make {
    fn on(mut self, node: &str) -> Self {
        self.0.spec.as_mut().unwrap().node_name = Some(node.to_owned());
        self
    }

    fn ready_for(mut self, seconds: i64) -> Self {
        let since = Time(NOW - SignedDuration::from_secs(seconds));
        let status = self.0.status.as_mut().unwrap();
        status.phase = Some("Running".to_owned());
        status.conditions = Some(vec![PodCondition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(since.clone()),
            ..PodCondition::default()
        }]);
        self.0.metadata.creation_timestamp = Some(since);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Pod)) -> Self {
        change(&mut self.0);
        self
    }

    fn arc(self) -> Arc<Pod> {
        Arc::new(self.0)
    }
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|pod| owners::name(&pod.metadata)).collect()
}

#[test]
fn pods_are_claimed_by_controller_and_selector() {
    let own = pod("own").arc();
    let unlabelled = pod("unlabelled").with(|pod| pod.metadata.labels = None).arc();
    let orphan = pod("orphan").with(|pod| pod.metadata.owner_references = None).arc();
    let foreign = pod("foreign")
        .with(|pod| pod.metadata.owner_references.as_mut().unwrap()[0].uid = "other".to_owned())
        .arc();
    let leaving = pod("leaving")
        .with(|pod| {
            pod.metadata.owner_references = None;
            pod.metadata.deletion_timestamp = Some(Time(NOW));
        })
        .arc();
    let all = [own, unlabelled, orphan, foreign, leaving];
    let claim = claims::claim(&set(1).metadata, &selector(), all.clone());
    assert_eq!(names(&claim.own), ["own"]);
    assert_eq!(names(&claim.adopt), ["orphan"]);
    assert_eq!(names(&claim.release), ["unlabelled"]);

    let mut terminating = set(1);
    terminating.metadata.deletion_timestamp = Some(Time(NOW));
    let claim = claims::claim(&terminating.metadata, &selector(), all);
    assert_eq!(names(&claim.own), ["own"]);
    assert!(claim.adopt.is_empty() && claim.release.is_empty(), "what goes takes nothing over");
}

#[test]
fn what_is_missing_is_created_up_to_a_burst() {
    let have = [pod("a").arc()];
    assert_eq!(plan::scale(&set(1), &have, &have, NOW), Scale::Keep);
    assert_eq!(plan::scale(&set(4), &have, &have, NOW), Scale::Create(3));
    assert_eq!(plan::scale(&set(9000), &have, &have, NOW), Scale::Create(plan::BURST));
    assert_eq!(plan::scale(&set(-1), &[], &[], NOW), Scale::Keep);
}

#[test]
fn batches_double_and_add_up() {
    assert_eq!(pod_control::slow_start(0).count(), 0);
    assert_eq!(pod_control::slow_start(1).collect::<Vec<_>>(), [1]);
    assert_eq!(pod_control::slow_start(10).collect::<Vec<_>>(), [1, 2, 4, 3]);
}

/// Each row's first pod goes before its second, and that in whichever order they come.
#[test]
fn the_smaller_loss_is_deleted_first() {
    let cost = |value: &'static str| {
        move |pod: &mut Pod| {
            pod.metadata.annotations = Some(BTreeMap::from([(
                "controller.kubernetes.io/pod-deletion-cost".to_owned(),
                value.to_owned(),
            )]));
        }
    };
    let rows = vec![
        ("not bound", pod("a").ready_for(9), pod("b").on("n")),
        (
            "pending",
            pod("a").on("n"),
            pod("b").on("n").with(|pod| {
                pod.status.as_mut().unwrap().phase = Some("Running".to_owned());
            }),
        ),
        (
            "not ready",
            pod("a").on("n").with(|pod| {
                pod.status.as_mut().unwrap().phase = Some("Running".to_owned());
            }),
            pod("b").on("n").ready_for(1),
        ),
        (
            "cheaper",
            pod("a").on("n").ready_for(9000).with(cost("-5")),
            pod("b").on("n").ready_for(1),
        ),
        ("ready for less long", pod("a").on("n").ready_for(10), pod("b").on("n").ready_for(10_000)),
    ];
    for (why, goes, stays) in rows {
        let (goes, stays) = (goes.arc(), stays.arc());
        for pods in [[goes.clone(), stays.clone()], [stays.clone(), goes.clone()]] {
            let Scale::Delete(victims) = plan::scale(&set(1), &pods, &pods, NOW) else {
                panic!("{why}: one must go")
            };
            assert_eq!(names(&victims), ["a"], "{why}");
        }
    }
}

#[test]
fn the_node_with_most_of_the_owners_pods_gives_one_up() {
    let own =
        [pod("alone").on("n1").ready_for(9).arc(), pod("crowded").on("n2").ready_for(9).arc()];
    let related = [own[0].clone(), own[1].clone(), pod("sibling").on("n2").ready_for(9).arc()];
    let Scale::Delete(victims) = plan::scale(&set(1), &own, &related, NOW) else { panic!() };
    assert_eq!(names(&victims), ["crowded"]);
}

#[test]
fn the_status_counts_ready_available_and_fully_labelled() {
    let mut set = set(3);
    set.spec.as_mut().unwrap().min_ready_seconds = Some(60);
    let pods = [
        pod("a").on("n").ready_for(100).arc(),
        pod("b").on("n").ready_for(10).arc(),
        pod("c").with(|pod| pod.metadata.labels = None).arc(),
    ];
    let status = plan::status(&set, &pods, Some(2), None, NOW);
    assert_eq!(status.replicas, 3);
    assert_eq!(status.fully_labeled_replicas, Some(2));
    assert_eq!(status.ready_replicas, Some(2));
    assert_eq!(status.available_replicas, Some(1));
    assert_eq!(status.observed_generation, Some(3));
    let again = plan::next_available(&set, &pods, NOW).unwrap();
    assert_eq!(again.as_secs(), 50, "the second pod becomes available by time alone");
}

#[test]
fn a_failure_is_a_condition_until_it_is_over() {
    let failure = Failure { reason: "FailedCreate", message: "quota".to_owned() };
    let mut set = set(1);
    set.status = Some(plan::status(&set, &[], None, Some(failure), NOW));
    let conditions = set.status.as_ref().unwrap().conditions.clone().unwrap();
    assert_eq!(conditions[0].type_, "ReplicaFailure");
    assert_eq!(conditions[0].message.as_deref(), Some("quota"));
    assert_eq!(plan::status(&set, &[], None, None, NOW).conditions, None);
}
