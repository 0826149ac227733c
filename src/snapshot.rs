//! `kontiki snapshot`: the state of a cluster in a file, and a new cluster from it.
//!
//! ```text
//!  save ──▶ FILE.partial ──▶ verify ──▶ FILE
//!                                        │
//!  restore: verify while reading ◀───────┘──▶ DIR/store.partial ──▶ DIR/store, then DIR/member.json
//! ```
//!
//! A file is under its name only when it is whole and checked, and a data directory is a member's
//! only when all of its state is there.

use std::fs::{self, File};
use std::io::{BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kontiki_raft::etcd::proto::SnapshotRequest;
use kontiki_raft::etcd::proto::maintenance_client::MaintenanceClient;
use kontiki_raft::restore::{Founder, restore as restore_store};
use kontiki_raft::snapshot_file::verify as verify_file;
use kontiki_raft::types::Member;
use kontiki_storage::engine::Engine;
use kontiki_storage::engine::disk::DiskEngine;
use kontiki_storage::snapshot::Summary;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::dir_lock::DirLock;
use crate::member::MemberRecord;
use crate::pki::files::{PkiDir, ServerPki};
use crate::server::identity::FOUNDER_ID;

/// How long a connection may take to open.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How long the stream may say nothing. A large store is measured before its first byte.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// A member's etcd API.
#[derive(Debug, Clone)]
pub struct Source {
    /// `host:port`.
    pub address: String,
    /// How it is spoken to; `None` is plain.
    pub tls: Option<SourceTls>,
}

/// Files in PEM.
#[derive(Debug, Clone)]
pub struct SourceTls {
    /// The authority of the member's certificate.
    pub ca: PathBuf,
    /// A certificate that the member lets in.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Source {
    async fn connect(&self) -> anyhow::Result<Channel> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", self.address))
            .with_context(|| format!("--etcd {}", self.address))?
            .connect_timeout(CONNECT_DEADLINE);
        if let Some(tls) = &self.tls {
            let read =
                |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
            let config = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(read(&tls.ca)?))
                .identity(Identity::from_pem(read(&tls.cert)?, read(&tls.key)?));
            endpoint = endpoint.tls_config(config).context("set up TLS")?;
        }
        let connected = endpoint.connect().await;
        connected.with_context(|| format!("connect to the etcd API at {}", self.address))
    }
}

/// Saves what a member has applied.
pub async fn save(source: &Source, path: &Path) -> anyhow::Result<Summary> {
    let partial = beside(path, "partial");
    let saved = async {
        download(source, &partial).await?;
        let summary = verify(&partial)?;
        fs::rename(&partial, path).with_context(|| format!("name {}", path.display()))?;
        sync_folder(path)?;
        anyhow::Ok(summary)
    }
    .await;
    if saved.is_err() {
        // What went wrong is told; what is left of it helps nobody.
        let _ = fs::remove_file(&partial);
    }
    saved
}

async fn download(source: &Source, partial: &Path) -> anyhow::Result<()> {
    let channel = source.connect().await?;
    let mut client = MaintenanceClient::new(channel).max_decoding_message_size(usize::MAX);
    let asked = client.snapshot(SnapshotRequest {}).await;
    let mut parts = asked.map_err(status).context("ask for a snapshot")?.into_inner();
    // It holds every secret of the cluster: its owner alone may read it.
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file =
        options.open(partial).with_context(|| format!("create {}", partial.display()))?;
    loop {
        let next = tokio::time::timeout(SILENCE_MAX, parts.message()).await;
        let next = next.with_context(|| format!("nothing was sent for {SILENCE_MAX:?}"));
        let Some(part) = next?.map_err(status).context("receive the snapshot")? else { break };
        file.write_all(&part.blob).with_context(|| format!("write {}", partial.display()))?;
    }
    file.sync_all().with_context(|| format!("sync {}", partial.display()))
}

fn status(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{} ({:?})", status.message(), status.code())
}

/// A path with something added to its name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// Makes a change of names in the folder of `path` last.
fn sync_folder(path: &Path) -> anyhow::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("sync {}", folder.display()))
}

fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    Ok(BufReader::new(file))
}

/// Checks all of a file and says what it holds.
pub fn verify(path: &Path) -> anyhow::Result<Summary> {
    verify_file(open(path)?).with_context(|| path.display().to_string())
}

/// What to make of a snapshot.
#[derive(Debug, Clone)]
pub struct RestoreConfig {
    /// The snapshot.
    pub file: PathBuf,
    /// Where the first server of the new cluster keeps what it has; absolute.
    pub data_dir: PathBuf,
    /// That server's name.
    pub name: String,
    /// A data directory of a server of the old cluster, whose authorities are kept.
    pub authorities_from: Option<PathBuf>,
    /// How far the revision jumps.
    pub revision_bump: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the file held.
    pub summary: Summary,
    /// The revision that the new cluster begins at.
    pub revision: u64,
}

/// Makes the data directory of the first server of a new cluster. It blocks.
pub fn restore(config: &RestoreConfig) -> anyhow::Result<Restored> {
    let data_dir = &config.data_dir;
    fs::create_dir_all(data_dir).with_context(|| format!("create {}", data_dir.display()))?;
    let _lock = DirLock::acquire(data_dir, "snapshot restore")?;
    ensure!(
        MemberRecord::find(data_dir)?.is_none() && !data_dir.join("store").exists(),
        "{} belongs to a member already: name another --data-dir",
        data_dir.display()
    );
    let summary = verify(&config.file)?;
    adopt_authorities(config)?;
    let cluster_id = format!("{:032x}", rand::random::<u128>());
    let partial = data_dir.join("store.partial");
    let revision = fill(config, &cluster_id, &partial)?;
    let store = data_dir.join("store");
    fs::rename(&partial, &store).with_context(|| format!("name {}", store.display()))?;
    sync_folder(&store)?;
    MemberRecord::new(&cluster_id, FOUNDER_ID, &config.name, true).write(data_dir)?;
    Ok(Restored { summary, revision })
}

fn adopt_authorities(config: &RestoreConfig) -> anyhow::Result<()> {
    let Some(from) = &config.authorities_from else { return Ok(()) };
    let ours = PkiDir::of(&config.data_dir);
    if ours.has("ca") {
        bail!("{} has authorities already: --authorities-from", config.data_dir.display());
    }
    let pki = ServerPki::load(&PkiDir::of(from))
        .with_context(|| format!("--authorities-from {}", from.display()))?;
    Ok(pki.write_authorities(&ours)?)
}

fn fill(config: &RestoreConfig, cluster_id: &str, partial: &Path) -> anyhow::Result<u64> {
    if partial.exists() {
        // Of a restoration that was cut off.
        fs::remove_dir_all(partial).with_context(|| format!("remove {}", partial.display()))?;
    }
    let engine: Arc<dyn Engine> = Arc::new(
        DiskEngine::open(partial).with_context(|| format!("create {}", partial.display()))?,
    );
    let founder = Founder {
        cluster_id: cluster_id.to_owned(),
        node_id: FOUNDER_ID,
        // Where it is reached it says itself once it runs.
        member: Member { name: config.name.clone(), ..Member::default() },
    };
    let file = open(&config.file)?;
    let restored = restore_store(&engine, file, &founder, config.revision_bump);
    let revision = restored.with_context(|| format!("restore {}", config.file.display()))?.get();
    engine.sync().with_context(|| format!("sync {}", partial.display()))?;
    Ok(revision)
}
