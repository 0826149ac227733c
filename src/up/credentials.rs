//! The certificates and tokens of a cluster under `up`.
//!
//! Authorities live with the servers. For a new cluster they are put into the first server's
//! directory before it starts, so that the others can be given a token at the same moment.

use std::path::{Path, PathBuf};

use super::plan::Plan;
use crate::client;
use crate::kubeconfig::Kubeconfig;
use crate::pki::Profile;
use crate::pki::files::{PkiDir, ServerPki, write_file};
use crate::token::Role;

/// What is needed to start members and to talk to them.
pub struct Credentials {
    /// File with the token for servers.
    pub server_token: PathBuf,
    /// File with the token for nodes.
    pub node_token: PathBuf,
    /// The administrator's kubeconfig.
    pub kubeconfig_path: PathBuf,
    /// A client with that identity.
    pub client: reqwest::Client,
}

impl Credentials {
    /// Finds or makes the authorities, and writes tokens and kubeconfig.
    pub fn prepare(data_dir: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let pki = authorities(plan)?;
        let kubeconfig = Kubeconfig {
            server: format!("https://{}", plan.balancer),
            ca_pem: pki.ca.cert_pem().to_owned(),
            identity: pki.ca.issue(&Profile::admin())?,
        };
        let prepared = Self {
            server_token: data_dir.join("server-token"),
            node_token: data_dir.join("node-token"),
            kubeconfig_path: data_dir.join("kubeconfig"),
            client: client::for_kubeconfig(&kubeconfig)?,
        };
        write_file(&prepared.server_token, &format!("{}\n", pki.token(Role::Server)?), 0o600)?;
        write_file(&prepared.node_token, &format!("{}\n", pki.token(Role::Node)?), 0o600)?;
        write_file(&prepared.kubeconfig_path, &kubeconfig.render("kontiki"), 0o600)?;
        Ok(prepared)
    }
}

fn authorities(plan: &Plan) -> anyhow::Result<ServerPki> {
    let dirs: Vec<PkiDir> =
        plan.servers.iter().map(|server| PkiDir::of(&server.data_dir)).collect();
    match dirs.iter().find(|dir| dir.has("ca")) {
        Some(dir) => Ok(ServerPki::load(dir)?),
        None => Ok(ServerPki::load_or_create(&dirs[0])?),
    }
}
