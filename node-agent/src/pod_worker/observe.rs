//! A worker's look at the runtime.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use super::Worker;
use crate::api::uid;
use crate::plan::{Observed, definition};
use crate::runtime::{Container, ContainerState, RuntimeError, annotations};

/// What is shown of the log where a container left no last words.
const LOG_TAIL_BYTES: u64 = 2048;
/// Longest last words.
const MESSAGE_BYTES_MAX: u64 = 4096;

impl Worker {
    /// Asks the runtime what it has of the pod.
    pub(super) async fn observe(&mut self, pod: &Pod) -> Result<(), RuntimeError> {
        let runtime = &self.context.runtime;
        let sandboxes = runtime.sandboxes(Some(uid(pod))).await?;
        let mut containers = runtime.containers(Some(uid(pod))).await?;
        for container in &mut containers {
            if container.state == ContainerState::Exited {
                self.read_last_words(pod, container);
            }
        }
        self.observed = Observed { sandboxes, containers };
        Ok(())
    }

    fn read_last_words(&self, pod: &Pod, container: &mut Container) {
        let file = container.annotations.get(annotations::TERMINATION_MESSAGE_FILE);
        let mut text =
            file.map(|file| tail(Path::new(file), MESSAGE_BYTES_MAX)).unwrap_or_default();
        let policy = definition(pod, &container.name)
            .and_then(|definition| definition.termination_message_policy);
        let from_log = policy.as_deref() == Some("FallbackToLogsOnError");
        if text.is_empty() && from_log && container.exit_code != 0 {
            let log = self
                .context
                .paths
                .pod_logs(crate::api::namespace(pod), crate::api::name(pod), uid(pod))
                .join(crate::spec::log_path(&container.name, container.attempt));
            text = tail(&log, LOG_TAIL_BYTES)
                .lines()
                .filter_map(|line| line.splitn(4, ' ').nth(3))
                .collect::<Vec<_>>()
                .join("\n");
        }
        if !text.is_empty() {
            container.annotations.insert(annotations::TERMINATION_MESSAGE_TEXT.to_owned(), text);
        }
    }
}

/// The end of a file, if there is one.
fn tail(path: &Path, bytes_max: u64) -> String {
    use std::io::{Read, Seek, SeekFrom};

    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let from = file.metadata()?.len().saturating_sub(bytes_max);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
