//! `kontiki server`: one member of the control plane, put together and taken apart.

pub mod config;

/// Runs one server until it is told to stop.
#[expect(clippy::unused_async, reason = "the parts are put together in the next commit")]
pub async fn run(config: config::ServerConfig) -> anyhow::Result<()> {
    anyhow::bail!("server {} cannot be put together yet", config.name)
}
