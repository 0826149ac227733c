//! All listeners of a server: bound together, before anything else is done.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::net::TcpListener;

use super::config::ServerConfig;

/// The listeners.
pub struct Listeners {
    /// Of the Kubernetes API.
    pub api: TcpListener,
    /// Of peers.
    pub raft: TcpListener,
    /// Of the etcd API.
    pub etcd: TcpListener,
}

impl Listeners {
    /// Binds them; what is taken is named with the flag that moves it.
    pub async fn bind(config: &ServerConfig) -> anyhow::Result<Self> {
        Ok(Self {
            api: bind("--api-listen", config.api_listen).await?,
            raft: bind("--raft-listen", config.raft_listen).await?,
            etcd: bind("--etcd-listen", config.etcd_listen).await?,
        })
    }
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}; choose another address with {flag}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_address_is_named_with_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = bind("--raft-listen", taken.local_addr().unwrap()).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("choose another address with --raft-listen"), "{text}");
        assert!(text.contains("in use"), "{text}");
    }
}
