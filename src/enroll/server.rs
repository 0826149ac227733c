//! A server's way in.

use serde::{Deserialize, Serialize};

/// Who asks to be made a member, once its Raft listens.
#[derive(Debug, Serialize, Deserialize)]
pub struct Joining {
    /// The id it was given.
    pub node_id: u64,
}
