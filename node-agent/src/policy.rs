//! Network policies of this node's pods, by nftables.
//!
//! ```text
//!  control plane: which addresses may ──► table::ruleset ──► ruleset::diff ──► nft
//!  talk to which pods of this node             pure             (one transaction)
//! ```
//!
//! What goes from one pod to another, or comes from elsewhere, is forwarded, and judged there: after
//! Services have put an endpoint in the place of their address, before a sender's address is hidden.
//! What the node itself sends is not forwarded, so that its probes and streams always reach pods.

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub mod table;

use crate::proxy::nft::{Nft, NftError};
use crate::proxy::ruleset::{self, Ruleset};

/// Lets packets between pods of one bridge be judged like all others.
const BRIDGED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// A pod of this node that some policy selects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Policed {
    /// Its UID.
    pub uid: String,
    /// Its addresses.
    pub ips: Vec<String>,
    /// What may come in; without it everything may.
    pub ingress: Option<Vec<Rule>>,
    /// What may go out; without it everything may.
    pub egress: Option<Vec<Rule>>,
}

/// What is let through: from or to one of the peers, to one of the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// The other side; without it anybody.
    pub peers: Option<Vec<Block>>,
    /// The ports; without it any.
    pub ports: Option<Vec<Ports>>,
}

/// An address or a range without some parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Block {
    /// The address or range.
    pub cidr: String,
    /// What is left out.
    pub except: Vec<String>,
}

/// Ports of a protocol, both ends included.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ports {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
}

/// Keeps the rules of policies in force. They stay when the agent stops.
#[derive(Debug)]
pub struct Policies {
    nft: Nft,
    /// What is in force, where that is known.
    written: Option<Ruleset>,
    /// The kernel's setting for packets of one bridge.
    setting: PathBuf,
    /// It is made.
    bridged: bool,
}

impl Policies {
    /// Nothing is written yet.
    pub fn new(nft: Nft) -> Self {
        Self { nft, written: None, setting: BRIDGED.into(), bridged: false }
    }

    /// With a setting that is any file.
    #[cfg(test)]
    pub(crate) fn with_setting(nft: Nft, setting: PathBuf) -> Self {
        Self { setting, ..Self::new(nft) }
    }

    /// Puts what the policies say of these pods in force; answers whether it is.
    #[must_use]
    pub async fn sync(&mut self, pods: &[Policed]) -> bool {
        let wanted = table::ruleset(pods);
        // Nodes whose pods no policy selects are spared that, however long it takes until one does.
        if !self.bridged && !pods.is_empty() {
            self.bridged = see_bridged(&self.setting).await;
        }
        if let Some(written) = &self.written {
            let commands = ruleset::diff(written, &wanted);
            if commands.is_empty() {
                return true;
            }
            match self.nft.run(&ruleset::render(self.nft.table(), &commands)).await {
                Ok(()) => {
                    self.written = Some(wanted);
                    return true;
                }
                Err(error) => self.failed(&error, "write the policies again from the start"),
            }
        }
        match self.nft.run(&ruleset::replace(self.nft.table(), &wanted)).await {
            Ok(()) => self.written = Some(wanted),
            Err(error) => self.failed(&error, "network policies are not in force on this node"),
        }
        self.written.is_some()
    }

    /// Looks whether the table is still there; where it is not, the next change writes all of it.
    pub async fn check(&mut self) -> bool {
        match self.nft.is_there().await {
            Ok(true) => return true,
            Ok(false) => tracing::warn!(table = self.nft.table(), "the policies' table is gone"),
            Err(error) => tracing::warn!(error = crate::api::chain(&error), "look at the table"),
        }
        self.written = None;
        false
    }

    fn failed(&mut self, error: &NftError, what: &str) {
        self.written = None;
        let error = crate::api::chain(error);
        tracing::error!(table = self.nft.table(), error, "{what}");
    }
}

/// Pods of one node reach each other over its bridge, which the kernel judges only where it is told
/// to. Answers whether it was.
async fn see_bridged(setting: &Path) -> bool {
    if !setting.exists()
        && let Some(modprobe) = crate::preflight::find_program("modprobe")
    {
        let mut command = tokio::process::Command::new(modprobe);
        let _ = command.arg("br_netfilter").kill_on_drop(true).output().await;
    }
    let made = std::fs::write(setting, "1");
    if let Err(error) = &made {
        tracing::warn!(%error, "policies between pods of this node need the module br_netfilter");
    }
    made.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pods_of_one_node_are_judged_though_the_first_look_found_none() {
        let dir = tempfile::tempdir().unwrap();
        let setting = dir.path().join("setting");
        let nft = Nft::stand_in(dir.path(), "exit 0");
        let mut policies = Policies::with_setting(nft, setting.clone());
        assert!(policies.sync(&[]).await);
        assert!(!setting.exists(), "nobody needs it");
        let pod = Policed {
            uid: "u".into(),
            ips: vec!["10.42.0.5".into()],
            ingress: Some(Vec::new()),
            egress: None,
        };
        assert!(policies.sync(&[pod]).await);
        assert_eq!(std::fs::read_to_string(&setting).unwrap(), "1");
    }
}
