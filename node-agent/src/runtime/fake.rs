//! A runtime in memory, for tests: containers run until a test ends them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;

use super::{
    Container, ContainerFigures, ContainerSpec, ContainerState, Credentials, ExecOutput, Image,
    Listed, Resources, Runtime, RuntimeError, RuntimeErrorKind, RuntimeStatus, RuntimeVersion,
    Sandbox, SandboxFigures, SandboxSpec, Streams,
};

/// Bytes of every image.
const IMAGE_BYTES: u64 = 100;

/// A runtime in memory.
#[derive(Debug, Default)]
pub struct FakeRuntime {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u32,
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Container>,
    images: BTreeSet<String>,
    registry: BTreeSet<String>,
    pulls: u32,
    shown: Vec<Credentials>,
    exit_at_once: BTreeMap<String, i32>,
    exec_exit: i32,
    calls: Vec<String>,
    fails_every: Option<u32>,
    asked: u32,
    breaks_once: bool,
    memory_used: u64,
}

impl State {
    /// Counts a call, notes it if it changes something, and fails it where the test wants that.
    fn call(&mut self, change: Option<String>) -> Result<(), RuntimeError> {
        self.asked += 1;
        self.calls.extend(change);
        assert!(!std::mem::take(&mut self.breaks_once), "as the test wants it");
        match self.fails_every {
            Some(every) if scattered(self.asked).is_multiple_of(every) => {
                Err(error(RuntimeErrorKind::Unavailable, "the runtime is down"))
            }
            _ => Ok(()),
        }
    }
}

/// A number without a pattern that a worker's own could meet.
fn scattered(number: u32) -> u32 {
    let mixed = (number ^ (number >> 16)).wrapping_mul(0x7feb_352d);
    let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x846c_a68b);
    mixed ^ (mixed >> 16)
}

fn error(kind: RuntimeErrorKind, message: &str) -> RuntimeError {
    RuntimeError { kind, message: message.to_owned() }
}

impl State {
    /// A call about a container, by its name.
    fn named(&self, verb: &str, id: &str) -> String {
        let name = self.containers.get(id).map_or(id, |container| container.name.as_str());
        format!("{verb} {name}")
    }
}

impl FakeRuntime {
    /// A runtime that has these images.
    pub fn with_images(images: &[&str]) -> Self {
        let fake = Self::default();
        fake.state.lock().images = images.iter().map(|image| (*image).to_owned()).collect();
        fake
    }

    /// Lets `image` be pulled from now on.
    pub fn publish(&self, image: &str) {
        self.state.lock().registry.insert(image.to_owned());
    }

    /// The images there are.
    pub fn image_names(&self) -> Vec<String> {
        self.state.lock().images.iter().cloned().collect()
    }

    /// Leaves an ended container of a pod behind.
    pub fn leave_ended(&self, pod_uid: &str, image: &str) {
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("container-{}", state.next);
        let (pod_uid, name) = (pod_uid.to_owned(), "c".to_owned());
        let mut container = Container { id: id.clone(), pod_uid, name, ..container_of(image) };
        end(&mut container, 0);
        state.containers.insert(id, container);
    }

    /// How often anything was pulled, or tried to be.
    pub fn pulls(&self) -> u32 {
        self.state.lock().pulls
    }

    /// What was shown to the registry so far.
    pub fn shown(&self) -> Vec<Credentials> {
        self.state.lock().shown.clone()
    }

    /// Makes each instance of the container end as soon as it starts.
    pub fn exit_at_once(&self, container: &str, code: i32) {
        self.state.lock().exit_at_once.insert(container.to_owned(), code);
    }

    /// What commands in containers end with.
    pub fn exec_exits(&self, code: i32) {
        self.state.lock().exec_exit = code;
    }

    /// Fails one in so many calls, always the same ones: 1 for all, none for none.
    pub fn fail_every(&self, every: Option<u32>) {
        self.state.lock().fails_every = every;
    }

    /// What every container uses of memory from now on.
    pub fn uses_memory(&self, bytes: u64) {
        self.state.lock().memory_used = bytes;
    }

    /// Panics at the next call.
    pub fn break_once(&self) {
        self.state.lock().breaks_once = true;
    }

    /// All changes asked for so far, in order.
    pub fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }

    /// Ends the running instance of the container.
    pub fn exit(&self, container: &str, code: i32) {
        let mut state = self.state.lock();
        let running = state
            .containers
            .values_mut()
            .find(|c| c.name == container && c.state == ContainerState::Running)
            .expect("a running container of this name");
        end(running, code);
    }

    /// Everything there is, as a worker sees it.
    pub fn all(&self) -> (Vec<Sandbox>, Vec<Container>) {
        let state = self.state.lock();
        (state.sandboxes.values().cloned().collect(), state.containers.values().cloned().collect())
    }

    /// The running instance of the container, if any.
    pub fn running(&self, container: &str) -> Option<Container> {
        let (_, containers) = self.all();
        containers.into_iter().find(|c| c.name == container && c.state == ContainerState::Running)
    }
}

/// A container of an image that was made now.
pub fn container_of(image: &str) -> Container {
    Container {
        id: "container".to_owned(),
        sandbox_id: "sandbox".to_owned(),
        name: "c".to_owned(),
        pod_uid: "u".to_owned(),
        attempt: 0,
        state: ContainerState::Created,
        created_at: Timestamp::now(),
        started_at: None,
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: image.to_owned(),
        image_id: image.to_owned(),
        annotations: BTreeMap::new(),
    }
}

fn end(container: &mut Container, code: i32) {
    container.state = ContainerState::Exited;
    container.exit_code = code;
    container.finished_at = Some(Timestamp::now());
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<RuntimeVersion, RuntimeError> {
        Ok(RuntimeVersion { name: "fake".into(), version: "1".into() })
    }

    async fn status(&self) -> Result<RuntimeStatus, RuntimeError> {
        Ok(RuntimeStatus { runtime_ready: true, network_ready: true, message: String::new() })
    }

    async fn image(&self, name: &str) -> Result<Option<Image>, RuntimeError> {
        let image = Image { id: name.to_owned(), tags: vec![name.to_owned()], ..Image::default() };
        let mut state = self.state.lock();
        state.call(None)?;
        Ok(state.images.contains(name).then_some(image))
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        let image = |name: &String| Image {
            id: name.clone(),
            tags: vec![name.clone()],
            size: IMAGE_BYTES,
            ..Image::default()
        };
        Ok(self.state.lock().images.iter().map(image).collect())
    }

    async fn remove_image(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        state.call(Some(format!("remove image {id}")))?;
        state.images.remove(id);
        Ok(())
    }

    async fn image_folder(&self) -> Result<Option<PathBuf>, RuntimeError> {
        Ok(None)
    }

    async fn pull(&self, name: &str, shown: Option<&Credentials>) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        state.shown.extend(shown.cloned());
        state.call(Some(format!("pull {name}")))?;
        state.pulls += 1;
        if !state.registry.contains(name) {
            return Err(error(RuntimeErrorKind::NotFound, "not in the registry"));
        }
        state.images.insert(name.to_owned());
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Listed>, RuntimeError> {
        let (sandboxes, containers) = self.all();
        let sandboxes = sandboxes.into_iter().map(|s| Listed {
            id: s.id,
            pod_uid: s.pod_uid,
            state: 100 + i32::from(s.ready),
        });
        let containers = containers.into_iter().map(|c| Listed {
            id: c.id,
            pod_uid: c.pod_uid,
            state: c.state as i32,
        });
        Ok(sandboxes.chain(containers).collect())
    }

    async fn sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<Sandbox>, RuntimeError> {
        self.state.lock().call(None)?;
        let (sandboxes, _) = self.all();
        let ours = |s: &Sandbox| pod_uid.is_none_or(|uid| uid == s.pod_uid);
        Ok(sandboxes.into_iter().filter(ours).collect())
    }

    async fn containers(&self, pod_uid: Option<&str>) -> Result<Vec<Container>, RuntimeError> {
        self.state.lock().call(None)?;
        let (_, containers) = self.all();
        let ours = |c: &Container| pod_uid.is_none_or(|uid| uid == c.pod_uid);
        Ok(containers.into_iter().filter(ours).collect())
    }

    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<String, RuntimeError> {
        let mut state = self.state.lock();
        state.call(Some("run sandbox".to_owned()))?;
        state.next += 1;
        let id = format!("sandbox-{}", state.next);
        let sandbox = Sandbox {
            id: id.clone(),
            pod_name: spec.name.clone(),
            pod_namespace: spec.namespace.clone(),
            pod_uid: spec.uid.clone(),
            attempt: spec.attempt,
            ready: true,
            created_at: Timestamp::now(),
            ips: vec!["10.0.0.5".parse().expect("an address")],
        };
        state.sandboxes.insert(id.clone(), sandbox);
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        state.call(Some("stop sandbox".to_owned()))?;
        for container in state.containers.values_mut() {
            if container.sandbox_id == id && container.state == ContainerState::Running {
                end(container, 137);
            }
        }
        if let Some(sandbox) = state.sandboxes.get_mut(id) {
            sandbox.ready = false;
        }
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        state.call(Some("remove sandbox".to_owned()))?;
        state.sandboxes.remove(id);
        state.containers.retain(|_, container| container.sandbox_id != id);
        Ok(())
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        sandbox: &SandboxSpec,
        spec: &ContainerSpec,
    ) -> Result<String, RuntimeError> {
        let mut state = self.state.lock();
        state.call(Some(format!("create {}", spec.name)))?;
        if !state.images.contains(&spec.image) {
            return Err(error(RuntimeErrorKind::NotFound, "no such image"));
        }
        state.next += 1;
        let id = format!("container-{}", state.next);
        let container = Container {
            id: id.clone(),
            sandbox_id: sandbox_id.to_owned(),
            name: spec.name.clone(),
            pod_uid: sandbox.uid.clone(),
            attempt: spec.attempt,
            annotations: spec.annotations.clone(),
            ..container_of(&spec.image)
        };
        state.containers.insert(id.clone(), container);
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        let call = state.named("start", id);
        state.call(Some(call))?;
        let exits = state.exit_at_once.clone();
        let container = state
            .containers
            .get_mut(id)
            .ok_or_else(|| error(RuntimeErrorKind::NotFound, "no such container"))?;
        container.state = ContainerState::Running;
        container.started_at = Some(Timestamp::now());
        if let Some(code) = exits.get(&container.name) {
            end(container, *code);
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        let call = state.named("stop", id);
        state.call(Some(format!("{call} {}s", grace.as_secs())))?;
        if let Some(container) = state.containers.get_mut(id)
            && container.state == ContainerState::Running
        {
            end(container, 143);
        }
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        let call = state.named("remove", id);
        state.call(Some(call))?;
        state.containers.remove(id);
        Ok(())
    }

    async fn exec(
        &self,
        id: &str,
        command: &[String],
        _: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let mut state = self.state.lock();
        let call = state.named("exec", id);
        state.call(Some(format!("{call} {}", command.join(" "))))?;
        Ok(ExecOutput { exit_code: state.exec_exit, output: String::new() })
    }

    async fn exec_url(&self, _: &str, _: &[String], _: Streams) -> Result<String, RuntimeError> {
        Err(error(RuntimeErrorKind::Failed, "no streams here"))
    }

    async fn attach_url(&self, _: &str, _: Streams) -> Result<String, RuntimeError> {
        Err(error(RuntimeErrorKind::Failed, "no streams here"))
    }

    async fn ports_url(&self, _: &str, _: &[i32]) -> Result<String, RuntimeError> {
        Err(error(RuntimeErrorKind::Failed, "no streams here"))
    }

    async fn update_container(&self, id: &str, bounds: &Resources) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        let call = state.named("update", id);
        state.call(Some(format!("{call} {}", bounds.cpu_shares)))
    }

    async fn memory_used(&self, _: &str) -> Result<Option<u64>, RuntimeError> {
        Ok(Some(self.state.lock().memory_used))
    }

    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        let call = state.named("reopen", id);
        state.call(Some(call))
    }

    async fn container_figures(&self) -> Result<Vec<ContainerFigures>, RuntimeError> {
        self.state.lock().call(None)?;
        Ok(Vec::new())
    }

    async fn sandbox_figures(&self) -> Result<Vec<SandboxFigures>, RuntimeError> {
        self.state.lock().call(None)?;
        Ok(Vec::new())
    }
}
