//! Packets between servers that are dropped, by nftables. Servers must have addresses of their own.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::cluster_file::ServerEntry;

/// How long nft may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Seen from the server that is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From its peers to it.
    Incoming,
    /// From it to its peers.
    Outgoing,
}

/// A table of rules; dropping it removes the table.
pub struct Cut {
    table: String,
}

impl Cut {
    /// Cuts `servers[victim]` off from the others in these directions.
    pub async fn between(
        servers: &[ServerEntry],
        victim: usize,
        directions: &[Direction],
    ) -> anyhow::Result<Self> {
        let raft: Vec<SocketAddr> = servers.iter().map(|server| server.raft).collect();
        let cut = Self { table: format!("kontiki_chaos_{}", raft[victim].port()) };
        run(&rules(&cut.table, &raft, victim, directions)).await?;
        Ok(cut)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let removed = std::process::Command::new("nft")
            .args(["delete", "table", "inet", &self.table])
            .stderr(Stdio::null())
            .status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("error: remove the rules: run `nft delete table inet {}`", self.table);
        }
    }
}

/// The rules as one transaction. Connections go both ways, so the port of a member is the source of
/// some packets and the destination of others; addresses alone tell who sends to whom.
fn rules(table: &str, raft: &[SocketAddr], victim: usize, directions: &[Direction]) -> String {
    let me = raft[victim].ip();
    let ports: Vec<String> = raft.iter().map(|address| address.port().to_string()).collect();
    let ports = ports.join(", ");
    let mut text = format!(
        "table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n  chain output {{\n    \
         type filter hook output priority 0;\n"
    );
    let peers = raft.iter().enumerate().filter(|(index, _)| *index != victim);
    for (_, peer) in peers {
        for direction in directions {
            let (from, to) = match direction {
                Direction::Incoming => (peer.ip(), me),
                Direction::Outgoing => (me, peer.ip()),
            };
            for side in ["sport", "dport"] {
                text +=
                    &format!("    ip saddr {from} ip daddr {to} tcp {side} {{ {ports} }} drop\n");
            }
        }
    }
    text + "  }\n}\n"
}

async fn run(rules: &str) -> anyhow::Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start nft: install nftables")?;
    let mut stdin = nft.stdin.take().context("nft must have a standard input")?;
    stdin.write_all(rules.as_bytes()).await.context("write to nft")?;
    drop(stdin);
    let ended = tokio::time::timeout(DEADLINE, nft.wait_with_output()).await;
    let output = ended.context("nft does not end")??;
    if !output.status.success() {
        bail!(
            "nft refuses the rules (root is needed): {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8, port: u16) -> SocketAddr {
        ([127, 77, 0, last], port).into()
    }

    #[test]
    fn one_direction_names_only_what_the_victim_sends() {
        let raft = [address(1, 11), address(2, 12), address(3, 13)];
        let text = rules("t", &raft, 1, &[Direction::Outgoing]);
        assert_eq!(text.matches("drop").count(), 4, "{text}");
        assert!(text.contains("ip saddr 127.77.0.2 ip daddr 127.77.0.1 tcp dport { 11, 12, 13 }"));
        assert!(!text.contains("ip daddr 127.77.0.2"), "{text}");
        let both = rules("t", &raft, 1, &[Direction::Outgoing, Direction::Incoming]);
        assert_eq!(both.matches("drop").count(), 8, "{both}");
    }
}
