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

    /// A shell script in the place of the program.
    #[cfg(test)]
    pub(crate) fn stand_in(dir: &std::path::Path, script: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;

        let program = dir.join("nft");
        std::fs::write(&program, format!("#!/bin/sh\ncat > /dev/null\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { program, table: "ip kontiki-test".to_owned() }
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::index::{Index, Key};
    use super::super::ports::tests::{promise_of, udp_port};
    use super::super::ports::{Policy, Promise, Protocol};
    use super::super::ruleset::{render, replace};
    use super::super::table::{ALL_PODS, Fragment, OWN_PODS, fragment};
    use super::*;

    /// A Service that uses all there is.
    fn rich(name: &str, endpoints: &[&str], affinity_s: Option<u32>) -> (Key, Fragment) {
        let mut udp = udp_port(endpoints, Some(30053));
        let address = Ipv4Addr::new(192, 0, 2, 60);
        udp.external_ips.insert(address);
        udp.balancer_ips.insert(address);
        udp.source_ranges = Some(vec!["10.0.0.0/8".into(), "10.1.0.0/16".into()]);
        udp.external = Policy::Local;
        let mut tcp = udp_port(endpoints, None);
        (tcp.protocol, tcp.affinity_s) = (Protocol::Tcp, affinity_s);
        let mut sctp = udp_port(endpoints, None);
        (sctp.protocol, sctp.internal) = (Protocol::Sctp, Policy::Local);
        let mut ports: Vec<_> =
            [udp, tcp, sctp].into_iter().flat_map(|p| promise_of(p).ports).collect();
        for port in &mut ports {
            port.key = format!("shop/{name}/{}/53", port.protocol);
        }
        (("shop".into(), name.into()), fragment(&Promise { ports, health: None }))
    }

    fn ranges() -> (Key, Fragment) {
        let slot = |set, range: &str| ((set, range.to_owned()), String::new());
        let elements =
            [(OWN_PODS, "10.42.0.0/24"), (ALL_PODS, "10.42.0.0/24"), (ALL_PODS, "10.42.1.0/24")];
        let elements = elements.map(|(set, range)| slot(set, range)).into();
        ((String::new(), "ranges".into()), Fragment { elements, ..Fragment::default() })
    }

    /// In a network namespace of its own, which goes with it.
    #[test]
    fn the_kernel_takes_the_table_and_every_difference() {
        let Some(nft) = find_program("nft").filter(|_| rustix::process::geteuid().is_root()) else {
            eprintln!("left out: this test needs nft and root");
            return;
        };
        let table = "ip kontiki-test";
        let mut index = Index::new("kt-test");
        let two = ["10.42.0.2", "10.42.1.2"];
        index.apply(vec![ranges(), rich("a", &two, Some(60)), rich("b", &[], None)]);
        let mut scripts = vec![replace(table, &index.ruleset()), replace(table, &index.ruleset())];
        for change in [
            rich("a", &two[..1], Some(60)),
            rich("a", &two, Some(600)),
            rich("b", &two, None),
            rich("a", &[], None),
            (ranges().0, Fragment::default()),
            (rich("b", &[], None).0, Fragment::default()),
        ] {
            scripts.push(render(table, &index.apply(vec![change])));
        }
        let dir = tempfile::tempdir().unwrap();
        let mut all = String::from("set -e\n");
        for (number, script) in scripts.iter().enumerate() {
            let path = dir.path().join(format!("{number}.nft"));
            std::fs::write(&path, script).unwrap();
            all.push_str(&format!("{} -f {}\n", nft.display(), path.display()));
        }
        let mut command = std::process::Command::new("unshare");
        let output = command.args(["--net", "sh", "-c", &all]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
