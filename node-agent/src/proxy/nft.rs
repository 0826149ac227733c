//! The program `nft`: takes a whole transaction on its standard input.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::preflight::find_program;

/// Longest wait for it.
const DEADLINE: Duration = Duration::from_secs(30);
/// So much of what it complains of is passed on.
const COMPLAINT_BYTES_MAX: usize = 400;

/// Why a transaction did not happen.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is not there.
    #[error("the program nft is missing: install the package nftables")]
    Missing,
    /// It cannot be run.
    #[error("run {program}")]
    Run {
        /// Its path.
        program: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It refused; nothing was changed.
    #[error("nft refused: {0}")]
    Refused(String),
    /// It did not end.
    #[error("nft did not end within {} s", DEADLINE.as_secs())]
    Silent,
}

/// The table of one agent.
#[derive(Clone, Debug)]
pub struct Nft {
    program: PathBuf,
    table: String,
}

impl Nft {
    /// The table `name` of IPv4.
    pub fn new(name: &str) -> Result<Self, NftError> {
        let program = find_program("nft").ok_or(NftError::Missing)?;
        Ok(Self { program, table: format!("ip {name}") })
    }

    /// Family and name, as commands have it.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Runs a transaction: all of it happens, or nothing.
    pub async fn run(&self, script: &str) -> Result<(), NftError> {
        let mut command = Command::new(&self.program);
        command.args(["-f", "-"]);
        self.output(command, script.as_bytes()).await.map(drop)
    }

    /// Whether the table is there: another program may have flushed everything.
    pub async fn is_there(&self) -> Result<bool, NftError> {
        let mut command = Command::new(&self.program);
        command.args(["list", "tables"]);
        let listed = self.output(command, &[]).await?;
        let line = format!("table {}", self.table);
        Ok(listed.lines().any(|listed| listed.trim() == line))
    }

    /// Removes the table, if it is there.
    pub async fn remove(&self) -> Result<(), NftError> {
        self.run(&format!("add table {0}\ndelete table {0}\n", self.table)).await
    }

    async fn output(&self, mut command: Command, input: &[u8]) -> Result<String, NftError> {
        let failed = |source| NftError::Run { program: self.program.display().to_string(), source };
        let piped = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
        command.stdin(piped).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // Where it does not read on, its complaint says why.
                let _ = stdin.write_all(input).await;
            }
        };
        let work = async { tokio::join!(feed, child.wait_with_output()).1 };
        let output = tokio::time::timeout(DEADLINE, work).await.map_err(|_| NftError::Silent)?;
        let output = output.map_err(failed)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let mut complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let end = complaint.floor_char_boundary(COMPLAINT_BYTES_MAX);
        complaint.truncate(end);
        Err(NftError::Refused(complaint))
    }
}

/// Removes the table of an agent that has ended; says why where it stays.
pub async fn remove_table(name: &str) {
    // Without the program there never was a table.
    let Ok(nft) = Nft::new(name) else { return };
    if let Err(error) = nft.remove().await {
        tracing::warn!(table = nft.table(), error = crate::api::chain(&error), "the table stays");
    }
}
