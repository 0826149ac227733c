//! What a server is told at its start, validated.

use std::net::SocketAddr;
use std::path::PathBuf;

use kontiki_api::admission::AdmissionConfiguration;
use kontiki_api::audit::AuditConfig;
use kontiki_api::authn::{AuthenticationConfig, TokenWebhookConfig};
use kontiki_api::authz::AuthorizationConfig;

use super::etcd_tls::EtcdTls;
use crate::cloud::Choice;
use crate::cluster_cidr::ClusterCidr;
use crate::compaction::Retention;
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

/// How much of the control plane a server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    ControlPlane,
    /// The store with its etcd API, and what members need of one another.
    Store,
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
    /// What it runs.
    pub scope: Scope,
    /// Where it serves the Kubernetes API.
    pub api_listen: SocketAddr,
    /// Where it listens for peers.
    pub raft_listen: SocketAddr,
    /// Where it serves the etcd API.
    pub etcd_listen: SocketAddr,
    /// How clients of the etcd API are told apart from others; `None` is not at all.
    pub etcd_tls: Option<EtcdTls>,
    /// How much history is kept.
    pub retention: Retention,
    /// The host at which clients and nodes reach it.
    pub advertise: String,
    /// The host at which peers reach it.
    pub peer_advertise: String,
    /// Admission plugins beyond those that always work.
    pub admission_plugins: Vec<String>,
    /// What these are told.
    pub admission_configuration: AdmissionConfiguration,
    /// Whose tokens are good beside the cluster's own, and who may come without any.
    pub authentication: Option<AuthenticationConfig>,
    /// Who is asked about tokens that nobody here knows.
    pub token_webhook: Option<TokenWebhookConfig>,
    /// Who is asked who may do what; without it the node authorizer and RBAC.
    pub authorization: Option<AuthorizationConfig>,
    /// What it writes down of requests, and where.
    pub audit: Option<AuditConfig>,
    /// The resources whose objects it encrypts in the store.
    pub encrypted: Vec<String>,
    /// The addresses of all pods.
    pub cluster_cidr: ClusterCidr,
    /// The cloud that the cluster stands on.
    pub cloud: Choice,
    /// What a cloud tells the cluster from others by.
    pub cluster_name: String,
}

impl ServerConfig {
    /// URL of its API.
    pub fn api_url(&self) -> String {
        format!("https://{}", host_port(&self.advertise, self.api_listen.port()))
    }

    /// Where clients reach its etcd API: with a scheme where it is not plain.
    pub fn etcd_address(&self) -> String {
        if self.etcd_tls.is_none() {
            return self.etcd_listen.to_string();
        }
        let host = match self.etcd_listen.ip() {
            ip if ip.is_unspecified() => self.advertise.clone(),
            ip => ip.to_string(),
        };
        format!("https://{}", host_port(&host, self.etcd_listen.port()))
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
