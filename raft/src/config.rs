//! What a node is started with.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kontiki_storage::engine::Engine;

use crate::types::{Member, NodeId};

/// What [`crate::node::Node::start`] needs to know.
#[derive(Clone)]
pub struct NodeConfig {
    /// This node's number. The engine must carry the same identity, or none yet (R8).
    pub node_id: NodeId,
    /// The cluster's name; members of another one are refused.
    pub cluster_id: String,
    /// This node's name and the addresses that others reach it by.
    pub member: Member,
    /// Where log, vote and state are kept.
    pub engine: Arc<dyn Engine>,
    /// The address that connections to peers come from, where it matters: firewalls and fault tests
    /// tell members apart by it.
    pub peer_source: Option<IpAddr>,
    /// How members prove who they are to one another; `None` speaks plain text, for tests.
    pub tls: Option<PeerTls>,
    /// How long things may take.
    pub timers: Timers,
    /// When to take a snapshot, and how much log to keep.
    pub log: LogPolicy,
    /// Where the disk is waited for.
    pub blocking: Blocking,
}

/// A member's certificate for mutual TLS, and the authority that signs those of its peers. PEM.
#[derive(Clone)]
pub struct PeerTls {
    /// The authority of the peers, and of nobody else.
    pub ca_pem: Vec<u8>,
    /// This member's certificate, valid as [`PEER_DNS_NAME`] for servers and clients.
    pub cert_pem: Vec<u8>,
    /// Its key.
    pub key_pem: Vec<u8>,
}

/// The name that every peer certificate carries as a subject alternative name: what is checked is
/// membership in the cluster's authority, so that a member may change its address.
pub const PEER_DNS_NAME: &str = "peer.kontiki.internal";

/// Times of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Between two heartbeats of the leader.
    pub heartbeat: Duration,
    /// The least time without a leader before a member campaigns.
    pub election_min: Duration,
    /// The most of it.
    pub election_max: Duration,
    /// How long a write, or a linearizable read, may take, a leader change included.
    pub request: Duration,
    /// How long to wait for a connection to a peer.
    pub connect: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(80),
            // A leader that falls silent is given up once its lease, `election_max`, and after that
            // a random time between the two have passed: 0.66 to 0.84 s after its last word.
            election_min: Duration::from_millis(240),
            election_max: Duration::from_millis(420),
            request: Duration::from_secs(8),
            connect: Duration::from_millis(400),
        }
    }
}

/// How the log is kept short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPolicy {
    /// After how many entries the state is synced, so that older ones can go.
    pub snapshot_every: u64,
    /// How many entries to keep behind that for members that lag: those need no snapshot.
    pub keep: u64,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self { snapshot_every: 5_000, keep: 10_000 }
    }
}

/// Where calls that wait for the disk are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Blocking {
    /// On threads of their own: the right choice with a disk.
    #[default]
    Threads,
    /// In place, and the log in a task: for an engine in memory under virtual time, where threads
    /// would not be seen.
    Inline,
}
