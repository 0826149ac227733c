//! The one command that passes the tests: formats, lints, policy, then every tier of tests.
//!
//! It writes nothing into the checkout. What the tests need from the system (containerd, etcd to be
//! measured beside, kubectl) it installs through the distribution's package manager when it is told
//! to with `--install` and is root; what is missing without that is said, with the tests it costs.

#[path = "verify/install.rs"]
mod install;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;
use install::has_program;

/// Formats, lints and tests the whole of Kontiki.
#[derive(Debug, Parser)]
struct Arguments {
    /// Install what the tests need from the system (needs root).
    #[arg(long)]
    install: bool,
    /// Run only these steps.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Step>,
}

/// One step of the verification, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    /// rustfmt.
    Format,
    /// clippy, every warning an error.
    Lint,
    /// cargo-deny: licences, banned crates, sources, advisories where they can be fetched.
    Policy,
    /// All tests: unit, contract, simulation, cluster, end to end.
    Test,
}

const STEPS: [Step; 4] = [Step::Format, Step::Lint, Step::Policy, Step::Test];

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("verify: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace root")?;
    let tools = target_folder(root).join("tools");
    if arguments.install {
        install::all(&tools)?;
    }
    let path = search_path(&tools);
    for step in STEPS {
        if !arguments.only.is_empty() && !arguments.only.contains(&step) {
            continue;
        }
        let started = Instant::now();
        eprintln!("verify: {step:?}");
        match step {
            Step::Format => cargo(root, &path, &["fmt", "--all", "--check"])?,
            Step::Lint => cargo(
                root,
                &path,
                &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"],
            )?,
            Step::Policy => policy(root, &path)?,
            Step::Test => test(root, &path, arguments.install)?,
        }
        eprintln!("verify: {step:?} passed in {:.0} s", started.elapsed().as_secs_f64());
    }
    Ok(())
}

fn target_folder(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// The tools' folder first, then what was there, then one more kubectl.
fn search_path(tools: &Path) -> String {
    let (bin, kubectl) = (tools.join("bin"), tools.join(install::KUBECTL_FOLDER));
    let path = env::var("PATH").unwrap_or_default();
    format!("{}:{path}:{}", bin.display(), kubectl.display())
}

fn cargo(root: &Path, path: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(root).env("PATH", path).stdin(Stdio::null());
    checked(&mut command)
}

fn checked(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Advisories come from a database on the network: without it the other checks still count.
fn policy(root: &Path, path: &str) -> Result<()> {
    if !has_program("cargo-deny", path) {
        eprintln!(
            "verify: cargo-deny is not installed, its checks are left out \
             (`--install`, or `cargo install cargo-deny --locked`)"
        );
        return Ok(());
    }
    cargo(root, path, &["deny", "--log-level", "error", "check", "bans", "licenses", "sources"])?;
    if cargo(root, path, &["deny", "--log-level", "off", "fetch", "db"]).is_err() {
        eprintln!("verify: the advisory database cannot be fetched here; advisories are left out");
        return Ok(());
    }
    cargo(root, path, &["deny", "--log-level", "error", "check", "advisories"])
}

/// The binary is built first, once: cluster and end-to-end tests start it as a user would. Where
/// everything was installed, a test that leaves itself out has failed.
fn test(root: &Path, path: &str, require_all: bool) -> Result<()> {
    cargo(root, path, &["build", "--quiet", "--bin", "kontiki"])?;
    let arguments: &[&str] = if has_program("cargo-nextest", path) {
        &["nextest", "run", "--workspace"]
    } else {
        &["test", "--workspace", "--", "--test-threads", "2"]
    };
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(root).env("PATH", path).stdin(Stdio::null());
    command.env("KONTIKI_BIN", target_folder(root).join("debug/kontiki"));
    if require_all {
        command.env("KONTIKI_REQUIRE_ALL", "1");
    }
    checked(&mut command)
}
