//! Runs the behaviours of Kubernetes conformance against a cluster: one that it boots, or any other.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Parser;
use kontiki_conformance::api::Api;
use kontiki_conformance::kubeconfig::Kubeconfig;
use kontiki_conformance::run::{self, Case};
use kontiki_conformance::world::{Leftovers, World};
use kontiki_conformance::{cases, image, report};
use tempfile::TempDir;

const IMAGE: &str = "docker.io/library/busybox:1";

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
    /// Write every behaviour with what came of it into this file.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// A cluster under `kontiki up`; stopped when dropped.
struct Up {
    child: Child,
    folder: TempDir,
}

impl Up {
    fn start() -> Result<Self> {
        let program = match std::env::var_os("KONTIKI_BIN") {
            Some(path) => PathBuf::from(path),
            None => std::env::current_exe()?.with_file_name("kontiki"),
        };
        let folder = TempDir::new()?;
        let images = folder.path().join("images");
        image::write_busybox(&images, IMAGE);
        let mut child = Command::new(&program)
            .args(["up", "--servers", "3", "--agents", "3", "--base-port", "27400", "--images"])
            .arg(&images)
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}: build it first", program.display()))?;
        let stdout = child.stdout.take().context("it is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        for line in lines.by_ref() {
            let line = line?;
            eprintln!("{line}");
            if line.starts_with("ready:") {
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { child, folder });
            }
        }
        bail!("the cluster does not start: {}", child.wait()?)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("data/kubeconfig")
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let data_dir = self.folder.path().join("data");
        if let Some(kontiki) = std::env::var_os("KONTIKI_BIN") {
            let _ = Command::new(kontiki).arg("down").arg("--data-dir").arg(&data_dir).status();
        }
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        let _ = self.child.wait();
    }
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
    let up = if arguments.kubeconfig.is_none() { Some(Up::start()?) } else { None };
    let file = match (&arguments.kubeconfig, &up) {
        (Some(path), _) => path.clone(),
        (None, Some(up)) => up.kubeconfig(),
        (None, None) => bail!("no cluster"),
    };
    let outcomes = tokio::runtime::Runtime::new()?.block_on(over(&file, arguments, &cases))?;
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
