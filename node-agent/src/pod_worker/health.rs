//! A worker's care for the probes of its containers.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as ContainerDef, ContainerStatus, Pod};

use super::Worker;
use crate::events::Kind;
use crate::plan::{ProbeState, all_containers, is_ending};
use crate::probes::{Question, Report, Target};
use crate::runtime::{Container, ContainerState};

impl Worker {
    /// Starts the probes that running containers need now and stops all others.
    pub(super) fn watch_health(&mut self, pod: &Pod, gone: bool) {
        let running: Vec<(Container, ContainerDef)> = all_containers(pod)
            .filter_map(|definition| {
                let latest = self.observed.latest(&definition.name)?;
                (latest.state == ContainerState::Running)
                    .then(|| (latest.clone(), definition.clone()))
            })
            .collect();
        self.memory.probes.retain(|id, _| running.iter().any(|(container, _)| container.id == *id));
        let mut wanted = Vec::new();
        for (container, definition) in &running {
            let state = self
                .memory
                .probes
                .entry(container.id.clone())
                .or_insert_with(|| initial(pod, container, definition));
            if is_ending(pod, gone) || state.unhealthy.is_some() {
                continue;
            }
            let questions: &[Question] = if state.started {
                &[Question::Readiness, Question::Liveness]
            } else {
                &[Question::Startup]
            };
            let questions = questions.iter().filter(|q| q.probe(definition).is_some());
            wanted.extend(questions.map(|question| (container, definition, *question)));
        }
        let still = |key: &(String, Question)| {
            wanted
                .iter()
                .any(|(container, _, question)| container.id == key.0 && *question == key.1)
        };
        self.probing.retain(|key, task| {
            if !still(key) {
                task.abort();
            }
            still(key)
        });
        let wanted: Vec<_> =
            wanted.into_iter().map(|(c, d, q)| (c.clone(), d.clone(), q)).collect();
        for (container, definition, question) in wanted {
            self.probe(container, definition, question);
        }
    }

    fn probe(&mut self, container: Container, definition: ContainerDef, question: Question) {
        let key = (container.id.clone(), question);
        let sandbox = self.observed.sandbox();
        let (Some(probe), Some(sandbox)) = (question.probe(&definition).cloned(), sandbox) else {
            return;
        };
        if self.probing.contains_key(&key) {
            return;
        }
        let target = Target {
            runtime: self.context.runtime.clone(),
            container_id: container.id,
            started_at: container.started_at.unwrap_or_else(Timestamp::now),
            // With the node's network the sandbox has no address of its own.
            ip: sandbox.ips.first().copied().unwrap_or(self.context.node.ip),
            container: definition,
            question,
            probe,
        };
        let task = self.probes.spawn(target.run(self.reports.0.clone()));
        self.probing.insert(key, task);
    }

    /// Takes in what a probe found.
    pub(super) fn note_report(&mut self, report: Report) {
        let pod = self.desired.borrow().pod.clone();
        let has_readiness = all_containers(&pod)
            .find(|definition| definition.name == report.container)
            .is_some_and(|definition| definition.readiness_probe.is_some());
        // A late report about a container that is no more.
        let Some(state) = self.memory.probes.get_mut(&report.container_id) else { return };
        let word = report.question.word();
        match (report.question, report.verdict) {
            (_, None) => {}
            (Question::Startup, Some(true)) => {
                state.started = true;
                state.ready = !has_readiness;
            }
            (Question::Readiness, Some(good)) => state.ready = good,
            (Question::Liveness, Some(true)) => {}
            (Question::Startup | Question::Liveness, Some(false)) => {
                state.unhealthy = Some(format!("failed {} probe", word.to_lowercase()));
            }
        }
        if let Some(failure) = report.failure {
            let message = format!("{word} probe failed: {failure}");
            let recorder = &self.context.recorder;
            recorder.pod(&pod, Some(&report.container), Kind::Warning, "Unhealthy", message);
        }
    }
}

/// What is known of a container before its first probe: what an earlier run of the agent told of
/// this very instance, else that it has still to prove what it has probes for.
fn initial(pod: &Pod, container: &Container, definition: &ContainerDef) -> ProbeState {
    let id = format!("containerd://{}", container.id);
    let told = statuses(pod).find(|status| status.container_id.as_ref() == Some(&id));
    let told_started = told.is_some_and(|status| status.started == Some(true));
    let started = definition.startup_probe.is_none() || told_started;
    let told_ready = told.is_some_and(|status| status.ready);
    ProbeState {
        started,
        ready: started && (definition.readiness_probe.is_none() || told_ready),
        unhealthy: None,
    }
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| {
        let init = status.init_container_statuses.iter().flatten();
        status.container_statuses.iter().flatten().chain(init)
    })
}
