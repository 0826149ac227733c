//! Runs the behaviours of Kubernetes conformance against a cluster: one that it boots, or any other.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use kontiki_conformance::api::Api;
use kontiki_conformance::kubeconfig::Kubeconfig;
use kontiki_conformance::leftovers::Leftovers;
use kontiki_conformance::run::{self, Case};
use kontiki_conformance::up::{IMAGE, Killer, Up};
use kontiki_conformance::world::World;
use kontiki_conformance::{cases, report};

/// Runs the behaviours of Kubernetes conformance, and prints which pass, fail or are not run.
#[derive(Debug, Parser)]
struct Arguments {
    /// Run against this cluster instead of one of its own (three servers, three agents; needs root).
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// An image with busybox that the nodes have or can pull.
    #[arg(long, default_value = IMAGE)]
    image: String,
    /// Run only behaviours whose names contain one of these.
    #[arg(long = "match", value_name = "TEXT")]
    matching: Vec<String>,
    /// How many run at a time.
    #[arg(long, default_value_t = 6)]
    parallel: usize,
    /// Kill the leader of the cluster that it boots (SIGKILL) every so many seconds.
    #[arg(long, value_name = "SECONDS", conflicts_with = "kubeconfig")]
    kill_leader: Option<u64>,
    /// Where the ports of its own cluster begin.
    #[arg(long, default_value_t = 27400)]
    base_port: u16,
    /// Write every behaviour with what came of it into this file.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn chosen(matching: &[String]) -> Vec<Case> {
    let wanted =
        |case: &Case| matching.is_empty() || matching.iter().any(|text| case.name.contains(text));
    cases::all().filter(wanted).collect()
}

fn run(arguments: &Arguments) -> Result<bool> {
    let cases = chosen(&arguments.matching);
    if let Some(unknown) =
        cases.iter().find(|case| !report::BEHAVIOURS.lines().any(|name| name == case.name))
    {
        bail!("behaviours.txt has no {:?}", unknown.name);
    }
    let up = match &arguments.kubeconfig {
        Some(_) => None,
        None => Some(Up::start(arguments.base_port)?),
    };
    let file = match (&arguments.kubeconfig, &up) {
        (Some(path), _) => path.clone(),
        (None, Some(up)) => up.kubeconfig(),
        (None, None) => bail!("no cluster"),
    };
    let killer = match (&up, arguments.kill_leader) {
        (Some(up), Some(seconds)) => Some(Killer::start(up, Duration::from_secs(seconds))),
        _ => None,
    };
    let outcomes = tokio::runtime::Runtime::new()?.block_on(over(&file, arguments, &cases))?;
    if let Some(killer) = killer {
        println!("the leader was killed {} times", killer.stop());
    }
    if let Some(path) = &arguments.out {
        std::fs::write(path, report::listing(&outcomes))
            .with_context(|| format!("write {}", path.display()))?;
    }
    print!("{}", report::summary(&outcomes));
    Ok(outcomes.iter().all(|outcome| outcome.result.is_ok()))
}

async fn over(file: &Path, arguments: &Arguments, cases: &[Case]) -> Result<Vec<report::Outcome>> {
    let kubeconfig = Kubeconfig::read(file)?;
    let world = World {
        api: Api::new(&kubeconfig)?,
        ns: format!("conf-{}", std::process::id()),
        image: arguments.image.clone(),
        kubeconfig_file: file.to_path_buf(),
        kubeconfig,
        leftovers: Leftovers::default(),
    };
    Ok(run::run(&world, cases, arguments.parallel).await)
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}
