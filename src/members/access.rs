//! Which servers are asked, and as whom.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::MemberChange;
use super::view::{Asked, View};
use crate::client;
use crate::cluster_file::ClusterFile;
use crate::cluster_status::ServerStatus;
use crate::kubeconfig::Kubeconfig;
use crate::pki::files::{PkiDir, ServerPki};
use crate::pki::{Profile, tls};

/// How long one server may take to tell its status.
const STATUS_DEADLINE: Duration = Duration::from_secs(3);
/// How long a change may take; the server's own deadline is shorter.
const CHANGE_DEADLINE: Duration = Duration::from_secs(20);
/// Where a server on this machine is, unless it was told otherwise.
const DEFAULT_SERVER: &str = "https://127.0.0.1:6443";

/// A way to the servers of a cluster, as an administrator.
pub struct Access {
    http: reqwest::Client,
    /// URLs to begin with; what they know leads to the others.
    servers: Vec<String>,
    /// The data directory that it was made from.
    pub data_dir: PathBuf,
    /// What `kontiki up` runs, where the data directory is its.
    pub up: Option<ClusterFile>,
    /// The file with the token that lets servers in, where it is at hand.
    pub token_file: Option<PathBuf>,
}

impl Access {
    /// By a kubeconfig, or by the data directory of `kontiki up` or of a server, which has the
    /// authority to make one an administrator.
    pub fn new(
        data_dir: &Path,
        kubeconfig: Option<&Path>,
        servers: &[String],
    ) -> anyhow::Result<Self> {
        let named = |default: String| {
            if servers.is_empty() { vec![default] } else { servers.to_vec() }
        };
        if let Some(path) = kubeconfig {
            let kubeconfig = Kubeconfig::read(path)?;
            let http = client::for_kubeconfig(&kubeconfig)?;
            return Ok(Self {
                http,
                servers: named(kubeconfig.server),
                data_dir: data_dir.to_path_buf(),
                up: None,
                token_file: None,
            });
        }
        let named_dir = data_dir.to_path_buf();
        let token_file = Some(data_dir.join("server-token")).filter(|path| path.is_file());
        if let Some(file) = ClusterFile::find(data_dir)? {
            let http = client::for_kubeconfig(&Kubeconfig::read(&data_dir.join("kubeconfig"))?)?;
            let servers = file.servers.iter().map(|server| server.api.clone()).collect();
            return Ok(Self { http, servers, data_dir: named_dir, up: Some(file), token_file });
        }
        if !PkiDir::of(data_dir).has("ca") {
            bail!(
                "no cluster runs in {}: name the data directory of `kontiki up`, or of a server, \
                 with --data-dir, or a --kubeconfig",
                data_dir.display()
            );
        }
        let servers = named(DEFAULT_SERVER.to_owned());
        let http = administrator(data_dir)?;
        Ok(Self { http, servers, data_dir: named_dir, up: None, token_file })
    }

    /// What all servers that answer say together.
    pub async fn look(&self) -> anyhow::Result<View> {
        let asked = self.ask(&self.servers).await;
        let view = View::of(&asked);
        let Some(known) = &view else { return Err(nobody(&asked)) };
        let missing = known.apis_beside(&self.servers);
        if missing.is_empty() {
            return view.context("somebody answered");
        }
        let more = self.ask(&missing).await;
        View::of(&[asked, more].concat()).context("somebody answered")
    }

    async fn ask(&self, servers: &[String]) -> Vec<Asked> {
        let asked = servers.iter().map(|api| async move {
            let begun = Instant::now();
            let answer = status(&self.http, api).await.map_err(|error| format!("{error:#}"));
            Asked { api: api.clone(), answer, took: begun.elapsed() }
        });
        futures_util::future::join_all(asked).await
    }

    /// Has a change made by whichever server answers first; what is refused is refused by all.
    pub async fn change(&self, view: &View, change: &MemberChange) -> anyhow::Result<Value> {
        let mut last = None;
        for api in view.answering() {
            let url = format!("{api}/kontiki/v1/members");
            let sent = self.http.post(url).json(change).timeout(CHANGE_DEADLINE).send().await;
            match sent {
                Ok(answer) => return client::json_answer(answer).await,
                // It never came to it: another may be asked.
                Err(error) if error.is_connect() => last = Some(client::why(error)),
                Err(error) => return Err(client::why(error).context(format!("ask {api}"))),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no server answers")))
    }
}

/// An administrator of the cluster whose authority lies in a server's directory.
pub fn administrator(data_dir: &Path) -> anyhow::Result<reqwest::Client> {
    let pki = ServerPki::load(&PkiDir::of(data_dir))?;
    let identity = pki.ca.issue(&Profile::admin())?;
    client::with_tls(tls::client_config("an administrator", pki.ca.cert_pem(), Some(&identity))?)
}

/// The status of one server.
pub async fn status(http: &reqwest::Client, api: &str) -> anyhow::Result<ServerStatus> {
    let url = format!("{}/kontiki/v1/status", api.trim_end_matches('/'));
    let json = client::get_json(http, &url, STATUS_DEADLINE).await?;
    serde_json::from_value(json).context("the answer is no status")
}

fn nobody(asked: &[Asked]) -> anyhow::Error {
    let why = asked.iter().filter_map(|asked| {
        let error = asked.answer.as_ref().err()?;
        Some(format!("{}: {error}", asked.api))
    });
    anyhow::anyhow!("no server answers ({})", why.collect::<Vec<_>>().join("; "))
}
