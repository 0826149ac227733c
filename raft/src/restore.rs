//! A new cluster from a snapshot of an old one.
//!
//! The state is not in the new log, so the log must begin behind it: at a position that is marked
//! as applied and purged, with a membership of the founder alone. Whoever joins is then sent the
//! state, since no log leads to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use kontiki_storage::engine::{Batch, Durability, Engine};
use kontiki_storage::kv::Revision;
use kontiki_storage::layout::Identity;
use kontiki_storage::snapshot::{Installer, Rebirth};
use kontiki_storage::store::Store;
use thiserror::Error;

use crate::error::NodeError;
use crate::log_store;
use crate::snapshot_file::{self, SnapshotFileError};
use crate::state_machine;
use crate::types::{Member, Membership, NodeId, StoredMembership};
use crate::wire;

/// The term and the index of the position that the restored state is said to be of.
const BEGIN: (u64, u64) = (1, 1);

/// The member that the new cluster begins with.
#[derive(Debug, Clone)]
pub struct Founder {
    /// The new cluster's name.
    pub cluster_id: String,
    /// Its number.
    pub node_id: NodeId,
    /// Its name, and where it is reached, as far as that is known.
    pub member: Member,
}

/// Why a snapshot was not restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// Something is there already.
    #[error("the store to restore into is not empty")]
    NotEmpty,
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] SnapshotFileError),
    /// The new store cannot be written.
    #[error("write the new store")]
    Node(#[from] NodeError),
}

impl RestoreError {
    fn store(error: impl Into<NodeError>) -> Self {
        Self::Node(error.into())
    }
}

/// Makes the empty `engine` the founder's of a new cluster that begins with the snapshot `file`,
/// `bump` revisions further on; returns the revision it begins at. Until it has returned, the engine
/// is nobody's and must be thrown away if it fails. It blocks.
pub fn restore(
    engine: &Arc<dyn Engine>,
    file: impl Read,
    founder: &Founder,
    bump: u64,
) -> Result<Revision, RestoreError> {
    reborn(engine, founder, bump, |installer| {
        snapshot_file::read(file, &mut |chunk| installer.push(chunk)).map_err(RestoreError::from)
    })
}

/// The same with a state that `fill` installs.
pub(crate) fn reborn(
    engine: &Arc<dyn Engine>,
    founder: &Founder,
    bump: u64,
    fill: impl FnOnce(&mut Installer) -> Result<(), RestoreError>,
) -> Result<Revision, RestoreError> {
    if Identity::read(&**engine).map_err(RestoreError::store)?.is_some() {
        return Err(RestoreError::NotEmpty);
    }
    let store = Store::open(Arc::clone(engine)).map_err(RestoreError::store)?;
    if store.applied().is_some() || !store.is_empty() {
        return Err(RestoreError::NotEmpty);
    }
    let mut installer = store.begin_install().map_err(RestoreError::store)?;
    fill(&mut installer)?;
    let begin = wire::log_id(BEGIN.0, BEGIN.1);
    let voters = vec![BTreeSet::from([founder.node_id])];
    let members = BTreeMap::from([(founder.node_id, founder.member.clone())]);
    let membership = Membership::new(voters, members)
        .map_err(|error| NodeError::Membership(error.to_string().into()))?;
    let membership = StoredMembership::new(Some(begin), membership);
    let rebirth = Rebirth {
        bump,
        applied: state_machine::encode_applied(&begin),
        state: state_machine::founding_state(&membership),
    };
    let revision = installer.finish_reborn(rebirth).map_err(RestoreError::store)?;
    let mut batch = Batch::default();
    log_store::begin_behind(&mut batch, &begin, founder.node_id);
    engine.write(batch, Durability::Now).map_err(RestoreError::store)?;
    let identity = Identity { cluster: founder.cluster_id.clone(), node: founder.node_id };
    identity.write(&**engine).map_err(RestoreError::store)?;
    Ok(revision)
}
