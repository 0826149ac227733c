//! TLS of the etcd API. It knows no users: a client that is let in may read and write everything,
//! so it is let in by its certificate alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustls::ServerConfig;

use super::identity::Identity;
use crate::pki::{self, ADMIN_GROUP, mutual};

/// Whose certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtcdTls {
    /// The cluster's: the server's own, and clients that are administrators by theirs. Nodes have
    /// certificates of the same authority, and are not let in.
    Cluster,
    /// Those in files: every client that the authority vouches for is let in.
    Files {
        /// The server's certificate, PEM.
        cert: PathBuf,
        /// Its key.
        key: PathBuf,
        /// The authority of the clients.
        client_ca: PathBuf,
    },
}

impl EtcdTls {
    /// What to serve with.
    pub fn config(&self, server: &Identity) -> anyhow::Result<Arc<ServerConfig>> {
        let config = match self {
            Self::Cluster => {
                let own = server.dir.read("api")?;
                let ca = server.pki.ca.cert_pem();
                mutual::server_config("the etcd API", &own, ca, Some(ADMIN_GROUP))
            }
            Self::Files { cert, key, client_ca } => {
                let own = pki::Identity {
                    cert_pem: read("--etcd-cert-file", cert)?,
                    key_pem: read("--etcd-key-file", key)?,
                };
                let ca = read("--etcd-client-ca-file", client_ca)?;
                mutual::server_config("the etcd API", &own, &ca, None)
            }
        };
        Ok(Arc::new(config.context("set up TLS for the etcd API")?))
    }
}

fn read(flag: &str, path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{flag} {}", path.display()))
}
