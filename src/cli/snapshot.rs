//! `kontiki snapshot`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use kontiki_storage::snapshot::Summary;

use crate::cluster_file::ClusterFile;
use crate::snapshot::{self, RestoreConfig, Source, SourceTls};

/// How far the revision jumps: beyond what clients of the old cluster can have seen since the
/// snapshot was taken, a week of a thousand writes a second.
pub(super) const REVISION_BUMP: u64 = 1_000_000_000;

/// Flags of `kontiki snapshot`.
#[derive(Debug, Args)]
pub struct Flags {
    /// What to do.
    #[command(subcommand)]
    act: Act,
}

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
enum Act {
    /// Save the state of a running cluster to a file.
    Save(SaveFlags),
    /// Check a file and say what it holds.
    Verify(VerifyFlags),
    /// Make the data directory of the first server of a new cluster from a file.
    Restore(RestoreFlags),
}

/// Flags of `kontiki snapshot save`.
#[derive(Debug, Args)]
struct SaveFlags {
    /// Where to save it.
    file: PathBuf,
    /// The etcd API of a server; by default that of the first server that `up` started.
    #[arg(long, env = "KONTIKI_ETCD", value_name = "ADDRESS")]
    etcd: Option<String>,
    /// The authority of that server's certificate, where it speaks TLS; PEM.
    #[arg(long, value_name = "FILE", requires_all = ["cert", "key", "etcd"])]
    cacert: Option<PathBuf>,
    /// A certificate that it lets in: an administrator's.
    #[arg(long, value_name = "FILE", requires = "cacert")]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "cacert")]
    key: Option<PathBuf>,
    /// The data directory of `kontiki up`.
    #[arg(long, env = "KONTIKI_DATA_DIR", default_value = "./kontiki-data", value_name = "DIR")]
    data_dir: PathBuf,
}

/// Flags of `kontiki snapshot verify`.
#[derive(Debug, Args)]
struct VerifyFlags {
    /// The snapshot.
    file: PathBuf,
}

/// Flags of `kontiki snapshot restore`.
#[derive(Debug, Args)]
struct RestoreFlags {
    /// The snapshot.
    file: PathBuf,
    /// The data directory to make; it must not be a member's.
    #[arg(long, env = "KONTIKI_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// The name of the server whose directory it becomes.
    #[arg(long, env = "KONTIKI_NAME", default_value = "server-1")]
    name: String,
    /// Data directory of a server of the old cluster: its authorities are kept, so that its
    /// certificates, tokens and sealed secrets stay good.
    #[arg(long, value_name = "DIR")]
    authorities_from: Option<PathBuf>,
    /// How far the revision jumps ahead; what is older counts as compacted.
    #[arg(long, default_value_t = REVISION_BUMP, value_name = "REVISIONS")]
    revision_bump: u64,
}

/// Saves, checks or restores.
pub fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let said = match flags.act {
        Act::Save(flags) => save(flags)?,
        Act::Verify(flags) => {
            let held = describe(&snapshot::verify(&flags.file)?);
            format!("{} is whole: {held}", flags.file.display())
        }
        Act::Restore(flags) => restore(flags)?,
    };
    super::print(&said)?;
    Ok(ExitCode::SUCCESS)
}

fn save(flags: SaveFlags) -> anyhow::Result<String> {
    let address = match &flags.etcd {
        Some(url) => url.rsplit("://").next().unwrap_or(url).to_owned(),
        None => first_of(&flags.data_dir)?,
    };
    let tls = match (flags.cacert, flags.cert, flags.key) {
        (Some(ca), Some(cert), Some(key)) => Some(SourceTls { ca, cert, key }),
        _ => None,
    };
    let source = Source { address, tls };
    let saving = snapshot::save(&source, &flags.file);
    let held = describe(&super::runtime(Some(1))?.block_on(saving)?);
    Ok(format!("saved {}: {held}", flags.file.display()))
}

fn first_of(data_dir: &Path) -> anyhow::Result<String> {
    let cluster = ClusterFile::read(data_dir).context("name a server with --etcd ADDRESS")?;
    let first = cluster.servers.first().context("cluster.json has no servers")?;
    Ok(first.etcd.to_string())
}

fn restore(flags: RestoreFlags) -> anyhow::Result<String> {
    super::server::check_name("--name", &flags.name)?;
    let config = RestoreConfig {
        data_dir: std::path::absolute(&flags.data_dir)
            .with_context(|| format!("make {} absolute", flags.data_dir.display()))?,
        file: flags.file,
        name: flags.name,
        authorities_from: flags.authorities_from,
        revision_bump: flags.revision_bump,
    };
    let restored = snapshot::restore(&config)?;
    Ok(format!(
        "restored {}: {}\nthe new cluster begins at revision {}; start its first server with\n  \
         kontiki server --name {} --data-dir {}",
        config.file.display(),
        describe(&restored.summary),
        restored.revision,
        config.name,
        config.data_dir.display()
    ))
}

fn describe(summary: &Summary) -> String {
    let Summary { revision, compacted, versions, keys } = summary;
    format!("{keys} keys at revision {revision}, {versions} changes after revision {compacted}")
}
