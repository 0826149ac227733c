//! `kontiki member`: who belongs to a cluster, and changing that.
//!
//! ```text
//!  access: which servers, and as whom      view: what they say together, one line a member
//!     │                                        │
//!     ├── change ──▶ POST /kontiki/v1/members: the leader decides (raft/src/membership.rs)
//!     ├── replace: remove ▶ stop and empty ▶ it joins as new ▶ watch it catch up and vote
//!     └── recover: no cluster left to ask: a new one from what one member has
//! ```

use serde::{Deserialize, Serialize};

pub mod access;
pub mod rebuild;
pub mod recover;
pub mod replace;
pub mod view;

/// What is asked of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum MemberChange {
    /// Expect a member at an address: it follows without a vote.
    Add {
        /// Its name.
        name: String,
        /// Where its peers reach it.
        raft: String,
    },
    /// Give a learner a vote.
    Promote {
        /// Its number.
        id: u64,
    },
    /// Take a member out, for good.
    Remove {
        /// Its number.
        id: u64,
    },
}

impl MemberChange {
    /// Whom it is about.
    pub fn subject(&self) -> String {
        match self {
            Self::Add { name, .. } => name.clone(),
            Self::Promote { id } | Self::Remove { id } => id.to_string(),
        }
    }
}
