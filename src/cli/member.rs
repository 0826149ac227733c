//! `kontiki member`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::Output;
use crate::members::access::Access;
use crate::members::view::View;
use crate::members::{MemberChange, recover, replace};

/// Flags of `kontiki member`.
#[derive(Debug, Args)]
pub struct Flags {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Say who belongs to a cluster, in what part, and how far each lags behind.
    List(ListFlags),
    /// Expect a new member: it follows without a vote until its server comes and has caught up.
    Add(AddFlags),
    /// Give a learner a vote, once it has caught up.
    Promote(OneFlags),
    /// Take a member out for good.
    Remove(OneFlags),
    /// Put a new member in the place of one that is dead, damaged or to be made anew.
    Replace(ReplaceFlags),
    /// Begin a new cluster with what one server has of a cluster that lost its quorum for good.
    Recover(RecoverFlags),
}

/// How the cluster is reached.
#[derive(Debug, Args)]
struct Reach {
    /// The data directory of `kontiki up`, or of a server: it makes one an administrator.
    #[arg(long, env = "KONTIKI_DATA_DIR", default_value = "./kontiki-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Be whom this kubeconfig says instead.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A server to ask (several may be named); by default those of the data directory, or the one
    /// on this machine.
    #[arg(long, env = "KONTIKI_SERVER", value_name = "URL", value_delimiter = ',')]
    server: Vec<String>,
}

#[derive(Debug, Args)]
struct ListFlags {
    #[command(flatten)]
    reach: Reach,
    /// How to print it.
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Args)]
struct AddFlags {
    /// The new server's name.
    name: String,
    /// Where its peers will reach it.
    #[arg(long, value_name = "HOST:PORT")]
    raft: String,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
struct OneFlags {
    /// The member, by its name or number.
    member: String,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
struct ReplaceFlags {
    /// The member, by its name or number.
    member: String,
    /// Seconds to wait until the new one votes; it goes on by itself after that.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    wait: u64,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
struct RecoverFlags {
    /// The data directory of the server whose log goes furthest; it must not run.
    #[arg(long, env = "KONTIKI_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// How far the revision jumps ahead; what is older counts as compacted.
    #[arg(long, default_value_t = super::snapshot::REVISION_BUMP, value_name = "REVISIONS")]
    revision_bump: u64,
}

impl Reach {
    fn access(&self) -> anyhow::Result<Access> {
        for url in &self.server {
            super::server::check_url("--server", url)?;
        }
        let data_dir = std::path::absolute(&self.data_dir)
            .with_context(|| format!("make {} absolute", self.data_dir.display()))?;
        Access::new(&data_dir, self.kubeconfig.as_deref(), &self.server)
    }
}

/// Lists or changes the members.
pub fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    super::runtime(Some(1))?.block_on(act(flags.act))?;
    Ok(ExitCode::SUCCESS)
}

async fn act(act: Act) -> anyhow::Result<()> {
    match act {
        Act::List(flags) => list(&flags.reach.access()?.look().await?, flags.output),
        Act::Add(flags) => add(&flags).await,
        Act::Promote(flags) => {
            let (id, name) = change(&flags, |id| MemberChange::Promote { id }).await?;
            super::print(&format!("member {id} ({name}) votes"))
        }
        Act::Remove(flags) => {
            let (id, name) = change(&flags, |id| MemberChange::Remove { id }).await?;
            super::print(&format!("member {id} ({name}) is out of the cluster for good"))
        }
        Act::Replace(flags) => {
            let access = flags.reach.access()?;
            let wait = Duration::from_secs(flags.wait);
            let tell = |text: &str| eprintln!("{text}");
            super::print(&replace::run(&access, &flags.member, wait, &tell).await?)
        }
        Act::Recover(flags) => recover_from(&flags.data_dir, flags.revision_bump).await,
    }
}

async fn change(
    flags: &OneFlags,
    change: impl Fn(u64) -> MemberChange,
) -> anyhow::Result<(u64, String)> {
    let access = flags.reach.access()?;
    let view = access.look().await?;
    let row = view.find(&flags.member)?;
    access.change(&view, &change(row.id)).await?;
    Ok((row.id, row.name.clone()))
}

async fn add(flags: &AddFlags) -> anyhow::Result<()> {
    super::server::check_name("NAME", &flags.name)?;
    let port = flags.raft.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    anyhow::ensure!(port.is_some(), "--raft {}: expected HOST:PORT", flags.raft);
    let access = flags.reach.access()?;
    let view = access.look().await?;
    anyhow::ensure!(
        view.members.iter().all(|row| row.name != flags.name),
        "{} is a member already; see `kontiki member replace`",
        flags.name
    );
    let change = MemberChange::Add { name: flags.name.clone(), raft: flags.raft.clone() };
    let added = access.change(&view, &change).await?;
    let id = added["id"].as_u64().context("the answer names no member")?;
    super::print(&format!(
        "member {id} ({}) is expected at {} and has no vote; {}",
        flags.name,
        flags.raft,
        replace::join_command(&access, &view, &flags.name)
    ))
}

async fn recover_from(data_dir: &Path, bump: u64) -> anyhow::Result<()> {
    let data_dir = std::path::absolute(data_dir)
        .with_context(|| format!("make {} absolute", data_dir.display()))?;
    let done = recover::run(&data_dir, bump).await?;
    super::print(&format!(
        "{} is a cluster of its own, with all of its log up to entry {} of term {}, and begins at \
         revision {}; the old store is kept in {}\nstart it as before; then have {} join as new \
         members: `kontiki member replace`, or an empty data directory and --join",
        done.name,
        done.last_log.1,
        done.last_log.0,
        done.revision,
        done.kept.display(),
        if done.others.is_empty() { "others".to_owned() } else { done.others.join(", ") },
    ))
}

fn list(view: &View, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => super::print(&serde_json::to_string_pretty(view)?),
        Output::Table => super::print(&table(view)),
    }
}

fn table(view: &View) -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_header(["ID", "NAME", "ROLE", "RAFT", "API", "APPLIED", "LAG", "STATE"]);
    let number = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |v| v.to_string());
    for row in &view.members {
        let role = if row.leads { "voter, leader" } else { &row.role };
        let state = match &row.error {
            Some(error) => format!("{}: {error}", row.state),
            None => row.state.to_owned(),
        };
        table.add_row([
            row.id.to_string(),
            row.name.clone(),
            role.to_owned(),
            row.raft.clone(),
            row.api.clone(),
            number(row.applied),
            number(row.lag),
            state,
        ]);
    }
    table
}
