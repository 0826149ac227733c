//! An unmodified kubectl, as a user runs it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// kubectl with a kubeconfig and a cache of its own.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// The kubectl on the path.
    pub fn new(kubeconfig: &Path) -> Self {
        Self::with_program(Path::new("kubectl"), kubeconfig)
    }

    /// Every kubectl on the path: versions differ in what they send.
    pub fn all(kubeconfig: &Path) -> Vec<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .map(|folder| folder.join("kubectl"))
            .filter(|program| program.exists())
            .map(|program| Self::with_program(&program, kubeconfig))
            .collect()
    }

    /// Another kubectl.
    pub fn with_program(program: &Path, kubeconfig: &Path) -> Self {
        Self { program: program.to_path_buf(), kubeconfig: kubeconfig.to_path_buf() }
    }

    /// The command, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let cache = self.kubeconfig.with_file_name("kubectl-cache");
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(cache)
            .args(arguments);
        command
    }

    /// Runs it with nothing on its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("start kubectl {arguments:?}: {error}"))
    }

    /// Runs it and gives what it printed, or its complaint.
    pub fn attempt(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.run(arguments);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(printed) } else { Err(printed + &complaint) }
    }

    /// Runs it and gives what it printed.
    ///
    /// # Panics
    /// When it exits with an error.
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.attempt(arguments)
            .unwrap_or_else(|complaint| panic!("kubectl {arguments:?}: {complaint}"))
    }

    /// Runs it and gives its complaint.
    ///
    /// # Panics
    /// When it succeeds.
    pub fn refused(&self, arguments: &[&str]) -> String {
        match self.attempt(arguments) {
            Ok(printed) => panic!("kubectl {arguments:?} should be refused, printed: {printed}"),
            Err(complaint) => complaint,
        }
    }

    /// `get … -o json`.
    ///
    /// # Panics
    /// When it exits with an error or prints something else than JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let printed = self.ok(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&printed).expect("kubectl -o json must print JSON")
    }

    /// `apply -f -` of a manifest.
    pub fn apply(&self, manifest: &str) -> Result<String, String> {
        use std::io::Write;
        let mut child = self
            .command(&["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(manifest.as_bytes()).map_err(|error| error.to_string())?;
        }
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(printed) } else { Err(printed + &complaint) }
    }
}
