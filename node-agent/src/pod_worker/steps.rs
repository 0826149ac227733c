//! Does the steps of a plan. Each is a future of its own; what came of it goes back to the worker.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container as ContainerDef, LifecycleHandler, Pod};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::tokens::Held;
use super::{Context, Outcome, claims, resize, start};
use crate::api::{ApiError, namespace, uid};
use crate::env::{self, References, referred};
use crate::events::Kind;
use crate::plan::{Step, all_containers};
use crate::volumes::{self, Sources};
use crate::{cgroups, probes, spec};

/// Wait after a step that failed for a passing reason, so that it is not begun anew at once.
const FAILED_STEP_WAIT: Duration = Duration::from_secs(1);
/// A container that is killed gets this long even if the pod gives it none: exits must be seen.
const GRACE_MIN: Duration = Duration::from_secs(1);
/// How long a container waits for the Services to be known, and how often it looks.
const SERVICES_WITHIN: Duration = Duration::from_secs(10);
const SERVICES_LOOK: Duration = Duration::from_millis(20);

/// Everything a step needs.
pub(super) struct Job {
    pub(super) context: Arc<Context>,
    pub(super) pod: Arc<Pod>,
    pub(super) ips: Vec<IpAddr>,
    pub(super) references: Arc<References>,
    pub(super) tokens: Arc<Mutex<Held>>,
    pub(super) cancel: CancellationToken,
}

impl Job {
    pub(super) async fn execute(&self, step: Step) -> Outcome {
        let runtime = &self.context.runtime;
        match step {
            Step::PrepareVolumes => Outcome::Volumes(self.prepare_volumes().await),
            Step::RunSandbox { attempt } => Outcome::Sandbox(self.run_sandbox(attempt).await),
            Step::StartContainer { name, attempt, sandbox_id } => {
                let result = start::start(self, &name, attempt, &sandbox_id).await;
                Outcome::Start { pod: self.pod.clone(), name, result }
            }
            Step::StopContainer { id, name, grace, why } => {
                let recorder = &self.context.recorder;
                recorder.pod(&self.pod, Some(&name), Kind::Normal, "Killing", why);
                self.done(self.stop_container(&id, &name, grace).await).await
            }
            Step::ResizeContainer { id, name } => {
                let result = resize::resize(self, &id, &name).await;
                Outcome::Resized { pod: self.pod.clone(), name, result }
            }
            Step::RemoveContainer { id } => {
                let result = runtime.remove_container(&id).await;
                self.done(result.map_err(|error| error.message)).await
            }
            Step::StopSandbox { id } => {
                let result = runtime.stop_sandbox(&id).await;
                self.done(result.map_err(|error| error.message)).await
            }
            Step::RemoveSandbox { id } => {
                let result = runtime.remove_sandbox(&id).await;
                self.done(result.map_err(|error| error.message)).await
            }
            Step::TearDown => Outcome::TornDown(self.tear_down().await),
            Step::DeletePod => {
                let result = self.context.api.delete(&self.pod).await;
                if result.is_err() {
                    tokio::time::sleep(FAILED_STEP_WAIT).await;
                }
                Outcome::Deleted(result)
            }
        }
    }

    async fn done(&self, result: Result<(), String>) -> Outcome {
        if result.is_err() {
            tokio::time::sleep(FAILED_STEP_WAIT).await;
        }
        Outcome::Runtime(result)
    }

    async fn prepare_volumes(&self) -> Result<References, String> {
        let references = self.fetch_references().await?;
        let api = self.context.api.as_ref();
        // Only this step takes the lock, and it is not planned again while it is under way.
        let tokens = self.tokens.lock().await.gather(api, &self.pod).await;
        let tokens = tokens.map_err(|error| error.to_string())?;
        let (context, pod) = (self.context.clone(), self.pod.clone());
        let facts = context.node.facts(&self.ips);
        let filled = tokio::task::spawn_blocking(move || {
            let sources = Sources { references: &references, facts: &facts, tokens: &tokens };
            volumes::prepare(&context.paths, &pod, sources).map(|()| references)
        });
        match filled.await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The variables of Services. An agent that has just started hears of them first, or a pod would
    /// never find the API; where no server answers, it does without (N1).
    pub(super) async fn service_links(&self) -> Vec<(String, String)> {
        let catalog = &self.context.catalog;
        let until = Instant::now() + SERVICES_WITHIN;
        while !catalog.read().is_complete() && Instant::now() < until {
            tokio::time::sleep(SERVICES_LOOK).await;
        }
        env::services::variables(&catalog.read(), &self.pod)
    }

    /// What the pod refers to, as it is now; what was known before while no server answers (N1).
    pub(super) async fn fetch_references(&self) -> Result<References, String> {
        let (config_maps, secrets) = referred(&self.pod);
        let api = &self.context.api;
        let mut found = References::default();
        for name in config_maps {
            let object = match api.config_map(namespace(&self.pod), &name).await {
                Ok(object) => Some(object),
                Err(ApiError::Gone(_)) => None,
                Err(error) => match self.references.config_maps.get(&name) {
                    Some(known) => known.clone(),
                    None => return Err(error.to_string()),
                },
            };
            found.config_maps.insert(name, object);
        }
        for name in secrets {
            let object = match api.secret(namespace(&self.pod), &name).await {
                Ok(object) => Some(object),
                Err(ApiError::Gone(_)) => None,
                Err(error) => match self.references.secrets.get(&name) {
                    Some(known) => known.clone(),
                    None => return Err(error.to_string()),
                },
            };
            found.secrets.insert(name, object);
        }
        found.volumes = claims::volumes(self).await?;
        Ok(found)
    }

    async fn run_sandbox(&self, attempt: u32) -> Result<(), String> {
        let context = &self.context;
        spec::check_name(&self.pod, &context.node)?;
        let sandbox = spec::sandbox(&self.pod, &context.node, &context.paths, attempt);
        // The pod's folder stands for everything the agent must clean up after it.
        for dir in [context.paths.pod(uid(&self.pod)), sandbox.log_directory.clone()] {
            std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        }
        context.runtime.run_sandbox(&sandbox).await.map(|_| ()).map_err(|error| error.message)
    }

    async fn stop_container(&self, id: &str, name: &str, grace: Duration) -> Result<(), String> {
        let began = tokio::time::Instant::now();
        let definition = all_containers(&self.pod).find(|container| container.name == name);
        let hook = definition.and_then(|definition| {
            Some((definition, definition.lifecycle.as_ref()?.pre_stop.as_ref()?))
        });
        if let Some((definition, hook)) = hook
            && !grace.is_zero()
        {
            let ran = tokio::time::timeout(grace, self.run_hook(id, definition, hook, grace)).await;
            if let Ok(Err(why)) = ran {
                let message = format!("PreStopHook failed: {why}");
                let recorder = &self.context.recorder;
                recorder.pod(&self.pod, Some(name), Kind::Warning, "FailedPreStopHook", message);
            }
        }
        let left = grace.saturating_sub(began.elapsed());
        // Runtimes count whole seconds: a fraction less than was promised must not cost one.
        let left = Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0));
        let left = if grace.is_zero() { Duration::ZERO } else { left.max(GRACE_MIN) };
        self.context.runtime.stop_container(id, left).await.map_err(|error| error.message)
    }

    /// Runs a hook of a container; answers why it failed.
    pub(super) async fn run_hook(
        &self,
        id: &str,
        container: &ContainerDef,
        hook: &LifecycleHandler,
        timeout: Duration,
    ) -> Result<(), String> {
        if let Some(exec) = &hook.exec {
            let command = exec.command.clone().unwrap_or_default();
            let output = self.context.runtime.exec(id, &command, timeout).await;
            let output = output.map_err(|error| error.message)?;
            if output.exit_code != 0 {
                let text = output.output.trim_end();
                return Err(format!("command exited with {}: {text}", output.exit_code));
            }
        }
        if let Some(action) = &hook.http_get {
            let ip = self.ips.first().copied().unwrap_or(self.context.node.ip);
            let port = probes::resolve_port(container, &action.port)?;
            probes::http_get(action, ip, port).await?;
        }
        if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0)))
                .await;
        }
        Ok(())
    }

    async fn tear_down(&self) -> Result<(), String> {
        let (context, pod) = (self.context.clone(), self.pod.clone());
        let removed = tokio::task::spawn_blocking(move || {
            // Of a pod that only the runtime knew there is no name, but the UID.
            for logs in context.paths.logs_of(uid(&pod)) {
                let _ = std::fs::remove_dir_all(logs);
            }
            cgroups::remove_pod(&context.node.cgroup_root, uid(&pod));
            volumes::tear_down(&context.paths, uid(&pod))
        });
        let result = match removed.await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if result.is_err() {
            tokio::time::sleep(FAILED_STEP_WAIT).await;
        }
        result
    }
}
