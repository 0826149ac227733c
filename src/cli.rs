//! The command line: one verb a file.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{config, telemetry};

mod admission;
pub mod agent;
mod audit;
mod authentication;
mod authorization;
pub mod bench;
pub mod chaos;
pub mod check;
mod cloud;
pub mod down;
pub mod hollow;
pub mod member;
pub mod schedule;
pub mod server;
pub mod snapshot;
pub mod status;
pub mod up;
pub mod version;

/// The exit code of a mistake in flags, environment or configuration file.
pub const EXIT_USAGE: u8 = 2;

/// What is logged unless told otherwise: openraft tells every step of its own at `info`, and at `warn`
/// each heartbeat that a peer leaves unanswered.
const DEFAULT_LOG: &str = "info,openraft=error";

/// A Kubernetes-compatible, highly available control plane in one binary.
#[derive(Debug, Parser)]
#[command(name = "kontiki", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What every verb takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// TOML file with a table for each verb; flags and environment win over it.
    #[arg(long, global = true, value_name = "FILE", env = "KONTIKI_CONFIG")]
    pub config: Option<std::path::PathBuf>,
    /// What to log: a level, or directives such as `info,kontiki_raft=debug`.
    #[arg(long, global = true, value_name = "FILTER", env = "KONTIKI_LOG", default_value = DEFAULT_LOG)]
    pub log: String,
    /// How to write log lines.
    #[arg(long, global = true, value_enum, env = "KONTIKI_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How a verb prints its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Boot a cluster on this machine and keep it running.
    Up(up::Flags),
    /// Stop what `up` started, and clean up after it.
    Down(down::Flags),
    /// Say how each server of a cluster is.
    Status(status::Flags),
    /// Try a running cluster against the CIS benchmark's items for control planes.
    Check(check::Flags),
    /// Run one server of the control plane.
    Server(server::Flags),
    /// Run one node's agent.
    Agent(agent::Flags),
    /// Say who belongs to a cluster, and change that.
    Member(member::Flags),
    /// Save the state of a cluster, and begin a new one with it.
    Snapshot(snapshot::Flags),
    /// Measure a cluster.
    Bench(bench::Flags),
    /// Join a cluster with nodes that are not there, to load it as real ones do.
    Hollow(hollow::Flags),
    /// Break a cluster on purpose, and check that it keeps its promises.
    Chaos(chaos::Flags),
    /// Ask the scheduler for its reasons.
    Schedule(schedule::Flags),
    /// Print the version and what it speaks.
    Version(version::Flags),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match config::parse(std::env::args_os()) {
        Ok(cli) => run(cli),
        Err(error) => error.report(),
    }
}

fn run(cli: Cli) -> ExitCode {
    if let Err(error) = telemetry::start(&cli.global) {
        return fail(&error);
    }
    let done = match cli.verb {
        Verb::Up(flags) => up::run(&cli.global, flags),
        Verb::Down(flags) => down::run(&flags),
        Verb::Status(flags) => status::run(&flags),
        Verb::Check(flags) => check::run(&flags),
        Verb::Server(flags) => server::run(flags),
        Verb::Agent(flags) => agent::run(flags),
        Verb::Member(flags) => member::run(flags),
        Verb::Snapshot(flags) => snapshot::run(flags),
        Verb::Bench(flags) => bench::run(&cli.global, flags),
        Verb::Hollow(flags) => hollow::run(&flags),
        Verb::Chaos(flags) => chaos::run(&cli.global, flags),
        Verb::Schedule(flags) => schedule::run(flags),
        Verb::Version(flags) => version::run(&flags),
    };
    match done {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

/// Prints a result. Whoever reads it may stop early, as `head` does: that is no error.
fn print(result: &impl std::fmt::Display) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{result}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("print the result"),
    }
}

/// Prints an error with its causes on one line, and gives the exit code of a failure.
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// A time in seconds that a flag says.
fn seconds(flag: &str, value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value)
        .ok()
        .with_context(|| format!("{flag} {value}: expected seconds"))
}

/// The same where none at all makes no sense.
fn some_seconds(flag: &str, value: f64) -> anyhow::Result<Duration> {
    let parsed = seconds(flag, value)?;
    anyhow::ensure!(!parsed.is_zero(), "{flag} {value}: expected seconds above 0");
    Ok(parsed)
}

/// The asynchronous runtime of a verb, with that many workers; one keeps everything on this thread.
fn runtime(threads: Option<usize>) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = match threads {
        Some(0) => anyhow::bail!("--runtime-threads 0: expected at least 1"),
        Some(1) => tokio::runtime::Builder::new_current_thread(),
        Some(count) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(count);
            builder
        }
        None => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build().context("start the asynchronous runtime")
}
