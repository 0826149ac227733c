use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, ReplicaSet, ReplicaSetStatus,
    RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::plan::{Plan, Step, View, plan};
use super::{revision, scaling, status};
use crate::controllers::owners;

const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);

fn deployment(replicas: i32, image: &str) -> Deployment {
    let labels = Some(BTreeMap::from([("app".to_owned(), "web".to_owned())]));
    Deployment {
        metadata: ObjectMeta {
            name: Some("web".to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some("web-uid".to_owned()),
            generation: Some(1),
            ..ObjectMeta::default()
        },
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            selector: LabelSelector { match_labels: labels.clone(), ..LabelSelector::default() },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels, ..ObjectMeta::default() }),
                spec: Some(PodSpec {
                    containers: vec![Container {
                        name: "web".to_owned(),
                        image: Some(image.to_owned()),
                        ..Container::default()
                    }],
                    ..PodSpec::default()
                }),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn with_strategy(mut deployment: Deployment, surge: i32, unavailable: i32) -> Deployment {
    deployment.spec.as_mut().unwrap().strategy = Some(DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(surge)),
            max_unavailable: Some(IntOrString::Int(unavailable)),
        }),
    });
    deployment
}

fn recreate(mut deployment: Deployment) -> Deployment {
    deployment.spec.as_mut().unwrap().strategy =
        Some(DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None });
    deployment
}

/// A cluster of one Deployment: its plan's steps are done at once, and each pod is at once ready
/// where `healthy` holds for its ReplicaSet.
struct Sim {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    running: Vec<String>,
    healthy: fn(&ReplicaSet) -> bool,
    now: Timestamp,
    events: Vec<String>,
}

impl Sim {
    fn new(deployment: Deployment) -> Self {
        Self {
            deployment,
            sets: vec![],
            running: vec![],
            healthy: |_| true,
            now: NOW,
            events: vec![],
        }
    }

    fn step(&mut self) -> Plan {
        self.now += SignedDuration::from_secs(1);
        let view = View {
            deployment: self.deployment.clone(),
            sets: self.sets.clone(),
            running: self.running.clone(),
        };
        let plan = plan(view, self.now);
        for step in &plan.steps {
            self.apply(step);
        }
        self.deployment.status = Some(plan.status.clone());
        plan
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Create(set) => {
                let mut set = (**set).clone();
                set.metadata.uid = set.metadata.name.clone();
                set.metadata.creation_timestamp = Some(Time(self.now));
                self.sets.push(set);
            }
            Step::Update(set) => self.replace(set),
            Step::Scale { set, from } => {
                self.events.push(format!("{from} to {}", scaling::size(set)));
                self.replace(set);
            }
            Step::Delete(name) => self.sets.retain(|set| owners::name(&set.metadata) != name),
            Step::SetRevision(number) => {
                let annotations = self.deployment.metadata.annotations.get_or_insert_default();
                annotations.insert(revision::REVISION.to_owned(), number.to_string());
            }
        }
    }

    fn replace(&mut self, set: &ReplicaSet) {
        let old = self.sets.iter_mut().find(|old| old.metadata.name == set.metadata.name).unwrap();
        *old = set.clone();
    }

    /// The ReplicaSets' own controller and the nodes catch up.
    fn settle_pods(&mut self) {
        for set in &mut self.sets {
            let size = scaling::size(set);
            let healthy = if (self.healthy)(set) { size } else { 0 };
            set.status = Some(ReplicaSetStatus {
                replicas: size,
                ready_replicas: Some(healthy),
                available_replicas: Some(healthy),
                observed_generation: set.metadata.generation,
                ..ReplicaSetStatus::default()
            });
        }
    }

    /// Until nothing changes; each step's limits are checked.
    fn run(&mut self) {
        for _ in 0..100 {
            let before = self.deployment.status.clone();
            let plan = self.step();
            let pods: i32 = self.sets.iter().map(scaling::size).sum();
            let bounds = super::bounds::Bounds::of(&self.deployment);
            assert!(pods <= bounds.most(), "{pods} pods are more than {bounds:?} allows");
            self.settle_pods();
            let available: i32 = self.sets.iter().map(scaling::available).sum();
            let had = before.as_ref().and_then(|before| before.available_replicas).unwrap_or(0);
            if self.is_rolling() && had >= bounds.least() {
                assert!(
                    available >= bounds.least(),
                    "{available} available are fewer than {bounds:?} allows"
                );
            }
            if plan.steps.is_empty() && before == self.deployment.status {
                return;
            }
        }
        panic!("the rollout does not come to rest: {:?}", self.deployment.status);
    }

    fn is_rolling(&self) -> bool {
        let strategy = self.deployment.spec.as_ref().unwrap().strategy.as_ref();
        strategy.is_none_or(|strategy| strategy.type_.as_deref() != Some("Recreate"))
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(scaling::size).collect()
    }

    fn set_image(&mut self, image: &str) {
        let spec = self.deployment.spec.as_mut().unwrap();
        spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
        self.deployment.metadata.generation =
            self.deployment.metadata.generation.map(|old| old + 1);
    }

    fn progressing(&self) -> (String, String, String) {
        let condition =
            status::find(self.deployment.status.as_ref().unwrap(), "Progressing").unwrap();
        (
            condition.status.clone(),
            condition.reason.clone().unwrap(),
            condition.message.clone().unwrap(),
        )
    }

    fn revision_of(&self, position: usize) -> i64 {
        revision::revision(&self.sets[position].metadata)
    }
}

#[test]
fn a_new_deployment_gets_one_replica_set_of_its_size_and_becomes_complete() {
    let mut sim = Sim::new(deployment(3, "web:1"));
    let first = sim.step();
    let Step::Create(set) = &first.steps[0] else { panic!("{first:?}") };
    let hash = &set.metadata.labels.as_ref().unwrap()["pod-template-hash"];
    assert_eq!(set.metadata.name.as_ref().unwrap(), &format!("web-{hash}"));
    let spec = set.spec.as_ref().unwrap();
    assert_eq!(spec.replicas, Some(3));
    assert_eq!(&spec.selector.match_labels.as_ref().unwrap()["pod-template-hash"], hash);
    let template = spec.template.as_ref().unwrap().metadata.as_ref().unwrap();
    assert_eq!(&template.labels.as_ref().unwrap()["pod-template-hash"], hash);
    assert_eq!(sim.progressing().1, "NewReplicaSetCreated");
    sim.settle_pods();
    sim.run();
    assert_eq!(sim.sizes(), [3]);
    let (status, reason, message) = sim.progressing();
    assert_eq!((status.as_str(), reason.as_str()), ("True", "NewReplicaSetAvailable"));
    assert_eq!(message, format!("ReplicaSet \"web-{hash}\" has successfully progressed."));
    let available = status::find(sim.deployment.status.as_ref().unwrap(), "Available").unwrap();
    assert_eq!(available.reason.as_deref(), Some("MinimumReplicasAvailable"));
    assert_eq!(revision::revision(&sim.deployment.metadata), 1);
}

#[test]
fn an_update_rolls_within_its_bounds_whatever_they_are() {
    for (replicas, surge, unavailable) in [(1, 1, 0), (4, 1, 0), (4, 0, 1), (10, 3, 2), (5, 5, 5)] {
        let mut sim = Sim::new(with_strategy(deployment(replicas, "web:1"), surge, unavailable));
        sim.run();
        sim.set_image("web:2");
        sim.run();
        assert_eq!(sim.sizes(), [0, replicas], "of {replicas} with {surge} and {unavailable}");
        assert_eq!(sim.progressing().1, "NewReplicaSetAvailable");
        assert_eq!(sim.revision_of(1), 2);
    }
}

#[test]
fn a_broken_update_stops_at_its_bounds_and_then_misses_its_deadline() {
    let mut sim = Sim::new(with_strategy(deployment(4, "web:1"), 1, 1));
    sim.deployment.spec.as_mut().unwrap().progress_deadline_seconds = Some(60);
    sim.run();
    sim.set_image("web:broken");
    sim.healthy = |set| revision::revision(&set.metadata) == 1;
    sim.run();
    assert_eq!(sim.sizes(), [3, 2], "3 good ones stay, 2 new ones try");
    let plan = sim.step();
    assert!(plan.again_after.is_some_and(|after| after.as_secs() <= 61), "{plan:?}");
    sim.now += SignedDuration::from_secs(70);
    sim.step();
    let (status, reason, message) = sim.progressing();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ProgressDeadlineExceeded"));
    assert!(message.ends_with("has timed out progressing."), "{message}");
    assert_eq!(sim.step().again_after, None);
}

#[test]
fn a_rollback_takes_the_old_replica_set_as_the_latest_revision() {
    let mut sim = Sim::new(deployment(2, "web:1"));
    sim.run();
    sim.set_image("web:2");
    sim.run();
    sim.set_image("web:1");
    sim.run();
    assert_eq!(sim.sizes(), [2, 0]);
    assert_eq!((sim.revision_of(0), sim.revision_of(1)), (3, 2));
    let annotations = sim.sets[0].metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
    assert_eq!(revision::revision(&sim.deployment.metadata), 3);
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let mut sim = Sim::new(recreate(deployment(2, "web:1")));
    sim.run();
    sim.running = vec![sim.sets[0].metadata.uid.clone().unwrap()];
    sim.set_image("web:2");
    sim.run();
    assert_eq!(sim.sizes(), [0], "no new one beside running old pods");
    sim.running.clear();
    sim.run();
    assert_eq!(sim.sizes(), [0, 2]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut sim = Sim::new(deployment(2, "web:1"));
    sim.run();
    sim.set_image("web:2");
    let spec = sim.deployment.spec.as_mut().unwrap();
    spec.paused = Some(true);
    spec.replicas = Some(5);
    sim.run();
    assert_eq!(sim.sizes(), [5]);
    assert_eq!(sim.progressing().1, "DeploymentPaused");
    sim.deployment.spec.as_mut().unwrap().paused = Some(false);
    sim.step();
    sim.run();
    assert_eq!(sim.sizes(), [0, 5]);
}

#[test]
fn a_resize_in_the_middle_of_a_rollout_is_shared_in_proportion() {
    let mut sim = Sim::new(with_strategy(deployment(10, "web:1"), 3, 2));
    sim.run();
    sim.set_image("web:broken");
    sim.healthy = |set| revision::revision(&set.metadata) == 1;
    sim.run();
    assert_eq!(sim.sizes(), [8, 5]);
    sim.deployment.spec.as_mut().unwrap().replicas = Some(15);
    let plan = sim.step();
    assert_eq!(plan.steps.len(), 2, "{plan:?}");
    // The example of the documentation: 5 more pods, 3 of them to the larger set.
    assert_eq!(sim.sizes(), [11, 7]);
    sim.deployment.spec.as_mut().unwrap().replicas = Some(0);
    sim.settle_pods();
    sim.step();
    assert_eq!(sim.sizes(), [0, 0]);
}

#[test]
fn scaling_a_settled_deployment_scales_its_one_replica_set() {
    let mut sim = Sim::new(deployment(2, "web:1"));
    sim.run();
    sim.deployment.spec.as_mut().unwrap().replicas = Some(7);
    sim.run();
    assert_eq!(sim.sizes(), [7]);
    assert_eq!(sim.events, ["2 to 7"]);
    sim.deployment.spec.as_mut().unwrap().replicas = Some(0);
    sim.run();
    assert_eq!(sim.sizes(), [0]);
}

#[test]
fn history_beyond_its_limit_is_deleted_oldest_revision_first() {
    let mut sim = Sim::new(deployment(1, "web:1"));
    sim.deployment.spec.as_mut().unwrap().revision_history_limit = Some(2);
    for image in ["web:1", "web:2", "web:3", "web:4", "web:5"] {
        sim.set_image(image);
        sim.run();
    }
    let mut revisions: Vec<i64> =
        (0..sim.sets.len()).map(|position| sim.revision_of(position)).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, [3, 4, 5]);
}

#[test]
fn hashes_are_stable_and_differ_by_template_and_by_collision() {
    let one = deployment(1, "web:1").spec.unwrap().template;
    let two = deployment(1, "web:2").spec.unwrap().template;
    assert_eq!(revision::template_hash(&one, None), revision::template_hash(&one.clone(), None));
    assert_ne!(revision::template_hash(&one, None), revision::template_hash(&two, None));
    assert_ne!(revision::template_hash(&one, None), revision::template_hash(&one, Some(1)));
    assert!(revision::same_template(&one, &one.clone()));
    assert!(!revision::same_template(&one, &two));
}

#[test]
fn a_failure_of_a_replica_set_shows_at_its_deployment() {
    use k8s_openapi::api::apps::v1::ReplicaSetCondition;
    let mut sim = Sim::new(deployment(1, "web:1"));
    sim.step();
    sim.sets[0].status = Some(ReplicaSetStatus {
        conditions: Some(vec![ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some("FailedCreate".to_owned()),
            message: Some("exceeded quota".to_owned()),
            ..ReplicaSetCondition::default()
        }]),
        ..ReplicaSetStatus::default()
    });
    let plan = sim.step();
    let failure = status::find(&plan.status, "ReplicaFailure").unwrap();
    assert_eq!(failure.message.as_deref(), Some("exceeded quota"));
}
