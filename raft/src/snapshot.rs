//! Snapshots, as openraft handles them.
//!
//! The store is its own snapshot: what is applied only has to be synced, and the log before it can
//! go. No copy is made on disk. A member that lags too far is sent a view of the store, chunk by
//! chunk, with bounded memory at both ends (`network.rs`, `peer.rs`).

use std::sync::Arc;

use kontiki_storage::snapshot::{Installer, Snapshot};

use crate::state_machine::Core;

/// What openraft hands around as the contents of a snapshot.
pub enum SnapshotData {
    /// A view of this member's store, to be sent or dropped.
    Outgoing(Box<Snapshot>),
    /// Received whole, beside the state; to be made the state.
    Incoming(Box<Installer>),
}

/// Makes the applied state durable, beside apply.
pub struct SnapshotBuilder {
    core: Arc<Core>,
}

impl SnapshotBuilder {
    pub(crate) fn of(core: Arc<Core>) -> Self {
        Self { core }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}
