//! Starts a container: its image, its definition, then the runtime.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Container as ContainerDef;

use super::steps::Job;
use crate::api::namespace;
use crate::events::Kind;
use crate::images::credentials;
use crate::plan::{definition, ephemeral_containers};
use crate::runtime::{ContainerState, Image, RuntimeError};
use crate::spec::{self, ContainerInput, files};

/// Longest wait for a hook that runs after the start.
const POST_START_DEADLINE: Duration = Duration::from_secs(120);
/// Grace of a container whose hook failed.
const POST_START_GRACE: Duration = Duration::from_secs(30);

/// Why a container was not started. The words after the reason are what users see.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("{0}")]
    Pull(String),
    #[error("Container image {0:?} is not present with pull policy of Never")]
    NeverPull(String),
    #[error(
        "Failed to apply default image tag {0:?}: couldn't parse image name {0:?}: invalid reference format"
    )]
    BadName(String),
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Create(String),
    #[error("{0}")]
    Run(String),
    #[error("the pod shall go away")]
    Cancelled,
}

impl StartError {
    /// The reason a status shows.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Pull(_) => "ErrImagePull",
            Self::NeverPull(_) => "ErrImageNeverPull",
            Self::BadName(_) => "InvalidImageName",
            Self::Config(_) => "CreateContainerConfigError",
            Self::Create(_) => "CreateContainerError",
            Self::Run(_) => "RunContainerError",
            Self::Cancelled => "",
        }
    }

    /// True if the image is what is wrong.
    pub(super) fn is_image(&self) -> bool {
        matches!(self, Self::Pull(_) | Self::NeverPull(_) | Self::BadName(_))
    }
}

/// Starts instance `attempt` of a container.
pub(super) async fn start(
    job: &Job,
    name: &str,
    attempt: u32,
    sandbox_id: &str,
) -> Result<(), StartError> {
    let context = &job.context;
    let Some(definition) = definition(&job.pod, name) else {
        return Err(StartError::Config(format!("the pod has no container {name:?}")));
    };
    let image = ensure_image(job, &definition).await?;
    let mut references = job.fetch_references().await.map_err(StartError::Config)?;
    references.services = job.service_links().await;
    let spec = spec::container(&ContainerInput {
        pod: &job.pod,
        container: &definition,
        target: target(job, name).await?,
        attempt,
        image: &image,
        references: &references,
        pod_ips: &job.ips,
        node: &context.node,
        paths: &context.paths,
    })
    .map_err(|error| StartError::Config(error.to_string()))?;
    let message = files::termination_message(&context.paths, &job.pod, &definition, attempt);
    let domain = spec::host_domain(&job.pod, &context.node);
    files::write(&context.paths, &job.pod, &job.ips, domain.as_deref(), &message)
        .map_err(|error| StartError::Config(format!("{}: {error}", message.display())))?;
    if job.cancel.is_cancelled() {
        return Err(StartError::Cancelled);
    }
    let sandbox = spec::sandbox(&job.pod, &context.node, &context.paths, 0);
    let id = context
        .runtime
        .create_container(sandbox_id, &sandbox, &spec)
        .await
        .map_err(|error| StartError::Create(error.message))?;
    let event = |kind, reason, text: String| {
        context.recorder.pod(&job.pod, Some(name), kind, reason, text);
    };
    event(Kind::Normal, "Created", format!("Created container: {name}"));
    context.runtime.start_container(&id).await.map_err(|error| StartError::Run(error.message))?;
    event(Kind::Normal, "Started", format!("Started container {name}"));
    post_start(job, &definition, &id).await
}

/// The running container whose processes an ephemeral one wants to see, by its identity.
async fn target(job: &Job, name: &str) -> Result<Option<String>, StartError> {
    let asked = ephemeral_containers(&job.pod)
        .find(|container| container.name == name)
        .and_then(|container| container.target_container_name.as_deref())
        .filter(|target| !target.is_empty());
    let Some(target) = asked else { return Ok(None) };
    let uid = crate::api::uid(&job.pod);
    let containers = job.context.runtime.containers(Some(uid)).await;
    let containers = containers.map_err(|error| StartError::Config(error.message))?;
    let found = containers
        .into_iter()
        .find(|c| c.name == target && c.state == ContainerState::Running)
        .ok_or_else(|| StartError::Config(format!("unable to find target container {target:?}")))?;
    Ok(Some(found.id))
}

async fn post_start(job: &Job, definition: &ContainerDef, id: &str) -> Result<(), StartError> {
    let Some(hook) = definition.lifecycle.as_ref().and_then(|hooks| hooks.post_start.as_ref())
    else {
        return Ok(());
    };
    let Err(why) = job.run_hook(id, definition, hook, POST_START_DEADLINE).await else {
        return Ok(());
    };
    let text = format!("PostStartHook failed: {why}");
    let recorder = &job.context.recorder;
    let name = &definition.name;
    recorder.pod(&job.pod, Some(name), Kind::Warning, "FailedPostStartHook", text.clone());
    // A failure here is seen in the container's end like any other.
    let _ = job.context.runtime.stop_container(id, POST_START_GRACE).await;
    Err(StartError::Run(text))
}

/// Sees to the image as the container's policy wants.
async fn ensure_image(job: &Job, definition: &ContainerDef) -> Result<Image, StartError> {
    let context = &job.context;
    let name = definition.image.as_deref().unwrap_or_default();
    if !is_image_name(name) {
        return Err(StartError::BadName(name.to_owned()));
    }
    let policy = PullPolicy::of(definition.image_pull_policy.as_deref(), name);
    let event = |kind, reason, text: String| {
        context.recorder.pod(&job.pod, Some(&definition.name), kind, reason, text);
    };
    let pull_error = |error: crate::runtime::RuntimeError| StartError::Pull(error.message);
    let present = context.runtime.image(name).await.map_err(pull_error)?;
    let policy = match &present {
        Some(image) if image.tags.iter().any(|tag| context.archived.contains(tag)) => {
            PullPolicy::IfNotPresent
        }
        _ => policy,
    };
    match (present, policy) {
        (Some(image), PullPolicy::IfNotPresent | PullPolicy::Never) => {
            let text = format!("Container image {name:?} already present on machine");
            event(Kind::Normal, "Pulled", text);
            return Ok(image);
        }
        (None, PullPolicy::Never) => {
            let error = StartError::NeverPull(name.to_owned());
            event(Kind::Warning, "ErrImageNeverPull", error.to_string());
            return Err(error);
        }
        _ => {}
    }
    event(Kind::Normal, "Pulling", format!("Pulling image {name:?}"));
    let began = Instant::now();
    let pulled = async {
        let _turn = context.pulls.acquire().await;
        let turn = Instant::now();
        pull(job, name).await.map(|()| turn.elapsed())
    };
    let pulled = tokio::select! {
        pulled = pulled => pulled,
        () = job.cancel.cancelled() => return Err(StartError::Cancelled),
    };
    let took = pulled.map_err(|error| {
        let text = format!("Failed to pull image {name:?}: {}", error.message);
        event(Kind::Warning, "Failed", text);
        StartError::Pull(error.message)
    })?;
    let image = context.runtime.image(name).await.map_err(pull_error)?;
    let image =
        image.ok_or_else(|| StartError::Pull(format!("{name:?} vanished after its pull")))?;
    event(
        Kind::Normal,
        "Pulled",
        format!(
            "Successfully pulled image {name:?} in {} ({} including waiting). Image size: {} bytes.",
            millis(took),
            millis(began.elapsed()),
            image.size
        ),
    );
    Ok(image)
}

/// Pulls with each of the pod's secrets that is for the image, or with none where there is none.
async fn pull(job: &Job, name: &str) -> Result<(), RuntimeError> {
    let mut secrets = Vec::new();
    for secret in credentials::names(&job.pod) {
        // One that is not there is no reason not to try, as upstream.
        match job.context.api.secret(namespace(&job.pod), secret).await {
            Ok(secret) => secrets.push(secret),
            Err(error) => tracing::debug!(%error, "a pull secret is left out"),
        }
    }
    let shown = credentials::for_image(&secrets, name);
    let runtime = &job.context.runtime;
    let Some((last, others)) = shown.split_last() else { return runtime.pull(name, None).await };
    for credentials in others {
        if runtime.pull(name, Some(credentials)).await.is_ok() {
            return Ok(());
        }
    }
    runtime.pull(name, Some(last)).await
}

fn millis(duration: Duration) -> String {
    match duration.as_millis() {
        millis @ 0..1000 => format!("{millis}ms"),
        _ => format!("{:.3}s", duration.as_secs_f64()),
    }
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// The container's, or the default for its image's tag.
    fn of(written: Option<&str>, image: &str) -> Self {
        match written {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            Some(_) => Self::IfNotPresent,
            None if is_latest(image) => Self::Always,
            None => Self::IfNotPresent,
        }
    }
}

/// True for names that mean whatever is newest.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// The form of image names: `host[:port]/path/name[:tag][@digest]`, lower case but for the tag.
fn is_image_name(image: &str) -> bool {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let good_digest = digest.is_none_or(|digest| {
        digest.split_once(':').is_some_and(|(algorithm, hex)| {
            !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
        })
    });
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match name[slash..].split_once(':') {
        Some((last, tag)) => (format!("{}{last}", &name[..slash]), Some(tag)),
        None => (name.to_owned(), None),
    };
    let good_tag = tag.is_none_or(|tag| {
        (1..=128).contains(&tag.len())
            && !tag.starts_with(['.', '-'])
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    });
    let parts: Vec<&str> = path.split('/').collect();
    // A first part with a dot, a port or capitals is a host.
    let is_host =
        |part: &str| parts.len() > 1 && (part.contains(['.', ':']) || part == "localhost");
    let good_part = |(at, part): (usize, &&str)| {
        let host = at == 0 && is_host(part);
        !part.is_empty()
            && part.bytes().all(|b| {
                b.is_ascii_lowercase()
                    || b.is_ascii_digit()
                    || b"_.-".contains(&b)
                    || (host && (b.is_ascii_uppercase() || b":[]".contains(&b)))
            })
            && (host || !part.starts_with(['.', '-', '_']) && !part.ends_with(['.', '-', '_']))
    };
    good_digest && good_tag && parts.iter().enumerate().all(good_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names_are_told_from_nonsense() {
        let digest = "a".repeat(64);
        for good in [
            "busybox",
            "busybox:1.35",
            "library/busybox",
            "docker.io/library/busybox:latest",
            "localhost:5000/a/b:V1",
            "example.com/a@sha256:HEX",
        ] {
            assert!(is_image_name(&good.replace("HEX", &digest)), "{good}");
        }
        for bad in ["", "Busybox", "a b", "busybox:", "a//b", "/a", "a:b:c", "a@sha256:x", "-a"] {
            assert!(!is_image_name(bad), "{bad}");
        }
    }

    #[test]
    fn only_the_newest_is_fetched_every_time() {
        for (image, written, want) in [
            ("a", None, PullPolicy::Always),
            ("a:latest", None, PullPolicy::Always),
            ("h:5000/a", None, PullPolicy::Always),
            ("a:1", None, PullPolicy::IfNotPresent),
            ("a@sha256:x", None, PullPolicy::IfNotPresent),
            ("a:1", Some("Always"), PullPolicy::Always),
            ("a", Some("Never"), PullPolicy::Never),
            ("a", Some("IfNotPresent"), PullPolicy::IfNotPresent),
        ] {
            assert_eq!(PullPolicy::of(written, image), want, "{image} {written:?}");
        }
    }
}
