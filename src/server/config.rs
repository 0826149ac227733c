//! What a server is told at its start, validated.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::token::Token;

/// How a server without a member record comes by its cluster. A record in its data directory wins.
#[derive(Debug, Clone)]
pub enum Origin {
    /// It begins a new one.
    Init,
    /// It joins one.
    Join {
        /// Servers of that cluster.
        servers: Vec<String>,
        /// What lets it in.
        token: Token,
    },
    /// It must have a record.
    Resume,
}

/// The flags of `kontiki server`, validated.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Its name.
    pub name: String,
    /// What it keeps; absolute.
    pub data_dir: PathBuf,
    /// How it comes by its cluster.
    pub origin: Origin,
    /// Where it serves the Kubernetes API.
    pub api_listen: SocketAddr,
    /// Where it listens for peers.
    pub raft_listen: SocketAddr,
    /// Where it serves the etcd API.
    pub etcd_listen: SocketAddr,
    /// The host at which clients and nodes reach it.
    pub advertise: String,
    /// The host at which peers reach it.
    pub peer_advertise: String,
}

impl ServerConfig {
    /// URL of its API.
    pub fn api_url(&self) -> String {
        format!("https://{}", host_port(&self.advertise, self.api_listen.port()))
    }

    /// Where peers reach it.
    pub fn raft_address(&self) -> String {
        host_port(&self.peer_advertise, self.raft_listen.port())
    }

    /// All hosts its certificates must cover.
    pub fn hosts(&self) -> Vec<String> {
        let mut hosts = vec![self.advertise.clone(), self.peer_advertise.clone()];
        hosts.dedup();
        hosts
    }
}

/// IPv6 addresses stand in brackets before a port.
fn host_port(host: &str, port: u16) -> String {
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_hosts_stand_in_brackets() {
        assert_eq!(host_port("fd00::2", 6443), "[fd00::2]:6443");
        assert_eq!(host_port("192.0.2.2", 6443), "192.0.2.2:6443");
        assert_eq!(host_port("node.example", 6443), "node.example:6443");
    }
}
