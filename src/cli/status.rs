//! `kontiki status`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::{Value, json};

use super::Output;
use crate::client;
use crate::cluster_file::ClusterFile;
use crate::cluster_status::ServerStatus;
use crate::live;
use crate::members::access::{self, Access};

/// Flags of `kontiki status`.
#[derive(Debug, Args)]
pub struct Flags {
    /// The data directory of `kontiki up`.
    #[arg(long, env = "KONTIKI_DATA_DIR", default_value = "./kontiki-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Ask through this kubeconfig instead.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// How to print it.
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
    /// Show it as it changes, until q or Ctrl-C; where standard output is no terminal, a line for each
    /// server every so often.
    #[arg(long, short, conflicts_with = "output")]
    watch: bool,
    /// Seconds from one look to the next.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", requires = "watch")]
    interval: f64,
}

/// One server, whether it answered or not.
#[derive(Debug)]
struct Entry {
    name: String,
    api: String,
    reachable: bool,
    error: Option<String>,
    status: Option<ServerStatus>,
}

/// Asks each server and prints what it knows. Fails when none answers.
pub fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    if flags.watch {
        let every = super::seconds("--interval", flags.interval)?;
        let access = Access::new(&flags.data_dir, flags.kubeconfig.as_deref(), &[])?;
        super::runtime(Some(1))?.block_on(live::run(&access, every))?;
        return Ok(ExitCode::SUCCESS);
    }
    let entries = super::runtime(None)?.block_on(ask_all(flags))?;
    match flags.output {
        Output::Json => {
            let servers: Vec<Value> = entries.iter().map(render).collect();
            super::print(&serde_json::to_string_pretty(&json!({ "servers": servers }))?)?;
        }
        Output::Table => super::print(&table(&entries))?,
    }
    let reachable = entries.iter().any(|entry| entry.reachable);
    Ok(if reachable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn ask_all(flags: &Flags) -> anyhow::Result<Vec<Entry>> {
    let kubeconfig = client::kubeconfig(flags.kubeconfig.as_deref(), &flags.data_dir)?;
    let http = client::for_kubeconfig(&kubeconfig)?;
    let servers = match &flags.kubeconfig {
        Some(_) => members_of(&http, &kubeconfig.server).await?,
        None => listed(&flags.data_dir)?,
    };
    let asked = servers.into_iter().map(|(name, api)| ask(&http, name, api));
    Ok(futures_util::future::join_all(asked).await)
}

fn listed(data_dir: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let file = ClusterFile::read(data_dir)?;
    Ok(file.servers.into_iter().map(|server| (server.name, server.api)).collect())
}

async fn members_of(http: &reqwest::Client, api: &str) -> anyhow::Result<Vec<(String, String)>> {
    let status = access::status(http, api).await.with_context(|| format!("ask {api}"))?;
    Ok(status.members.into_iter().map(|member| (member.name, member.api)).collect())
}

async fn ask(http: &reqwest::Client, name: String, api: String) -> Entry {
    match access::status(http, &api).await {
        Ok(status) => Entry { name, api, reachable: true, error: None, status: Some(status) },
        Err(error) => {
            let error = Some(format!("{error:#}"));
            Entry { name, api, reachable: false, error, status: None }
        }
    }
}

/// The name we know the server by wins over none; flattening alone would write it twice.
fn render(entry: &Entry) -> Value {
    let mut value = serde_json::to_value(&entry.status).unwrap_or_default();
    if !value.is_object() {
        value = json!({});
    }
    value["name"] = json!(entry.name);
    value["api"] = json!(entry.api);
    value["reachable"] = json!(entry.reachable);
    if let Some(error) = &entry.error {
        value["error"] = json!(error);
    }
    value
}

fn table(entries: &[Entry]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header([
        "NAME", "ID", "API", "ROLE", "LEADER", "TERM", "COMMIT", "APPLIED", "REVISION", "HASH",
    ]);
    for entry in entries {
        let Some(status) = &entry.status else {
            let error = entry.error.clone().unwrap_or_default();
            table.add_row([&entry.name, "", &entry.api, &format!("unreachable: {error}")]);
            continue;
        };
        table.add_row([
            entry.name.clone(),
            status.id.to_string(),
            entry.api.clone(),
            status.role.clone(),
            status.leader.clone().unwrap_or_else(|| "none".into()),
            status.term.to_string(),
            status.commit_index.to_string(),
            status.applied_index.to_string(),
            status.revision.to_string(),
            status.hash.clone(),
        ]);
        if let Some(reason) = &status.failed {
            table.add_row(["", "", &format!("serves nothing: {reason}")]);
        }
    }
    table
}
