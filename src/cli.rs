//! The command line: one verb a file.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{config, telemetry};

pub mod version;

/// The exit code of a mistake in flags, environment or configuration file.
pub const EXIT_USAGE: u8 = 2;

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
    #[arg(long, global = true, value_name = "FILTER", env = "KONTIKI_LOG", default_value = "info")]
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
        Verb::Version(flags) => version::run(&flags),
    };
    match done {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

/// Prints an error with its causes on one line, and gives the exit code of a failure.
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
