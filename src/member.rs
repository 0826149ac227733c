//! `member.json`: which member of which cluster a data directory belongs to (invariant R8).
//!
//! Written when the member is given its id, before its first Raft message, once more when it has got
//! its vote, and when it has heard that it was removed. Whoever has no record gets a new id; the id
//! of a lost directory is never used again.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::pki::PkiError;
use crate::pki::files::write_file;

const FILE_NAME: &str = "member.json";
const FORMAT: u32 = 1;

/// Whose a data directory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Version of this record.
    pub format: u32,
    /// The cluster.
    pub cluster_id: String,
    /// The member's id within it.
    pub node_id: u64,
    /// The member's name.
    pub name: String,
    /// Whether it began the cluster, alone.
    pub founder: bool,
    /// Whether it has had a vote: from then on it never asks to be made a member again, so that one
    /// that was removed does not come back.
    #[serde(default)]
    pub joined: bool,
    /// Whether the cluster has removed it, for good.
    #[serde(default)]
    pub removed: bool,
}

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum MemberError {
    /// It cannot be read.
    #[error("read {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It cannot be written.
    #[error("note the member's identity")]
    Write(#[source] PkiError),
    /// It is no record.
    #[error(
        "{path} is damaged: {reason}. Move the data directory away and start again with --join: \
         the server comes back as a new member"
    )]
    Damaged {
        /// Which file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// It is a record of another version.
    #[error("{path} has format {found}; this binary reads format {FORMAT}")]
    Format {
        /// Which file.
        path: String,
        /// What is there.
        found: u32,
    },
    /// It is another member's.
    #[error(
        "{path} belongs to the server {found:?}, not to {wanted:?}: start it as --name {found}, or \
         name another --data-dir"
    )]
    OtherMember {
        /// Which directory.
        path: String,
        /// Whose it is.
        found: String,
        /// Who asked.
        wanted: String,
    },
    /// It was removed.
    #[error(
        "this server, member {node_id}, was removed from the cluster for good. To have it back as a \
         new member, empty {path} and start it with --join"
    )]
    Removed {
        /// Which directory.
        path: String,
        /// Who it was.
        node_id: u64,
    },
    /// It is another cluster's.
    #[error(
        "{path} belongs to another cluster than the one that the join token is for: name another \
         --data-dir, or the token of that cluster"
    )]
    OtherCluster {
        /// Which directory.
        path: String,
    },
}

impl MemberRecord {
    /// A new one.
    pub fn new(cluster_id: &str, node_id: u64, name: &str, founder: bool) -> Self {
        Self {
            format: FORMAT,
            cluster_id: cluster_id.into(),
            node_id,
            name: name.into(),
            founder,
            joined: false,
            removed: false,
        }
    }

    /// The record of a directory, if it has one.
    pub fn find(data_dir: &Path) -> Result<Option<Self>, MemberError> {
        let path = data_dir.join(FILE_NAME);
        let shown = path.display().to_string();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(MemberError::Read { path: shown, source }),
        };
        let record: Self = serde_json::from_slice(&text).map_err(|error| MemberError::Damaged {
            path: shown.clone(),
            reason: error.to_string(),
        })?;
        if record.format != FORMAT {
            return Err(MemberError::Format { path: shown, found: record.format });
        }
        Ok(Some(record))
    }

    /// The record of a directory, which must be that of the server `name` where it is there.
    pub fn find_for(data_dir: &Path, name: &str) -> Result<Option<Self>, MemberError> {
        let found = Self::find(data_dir)?;
        match &found {
            Some(record) if record.name != name => Err(MemberError::OtherMember {
                path: data_dir.display().to_string(),
                found: record.name.clone(),
                wanted: name.into(),
            }),
            _ => Ok(found),
        }
    }

    /// Whether a directory is that of a member that was removed.
    pub fn is_removed(data_dir: &Path) -> bool {
        matches!(Self::find(data_dir), Ok(Some(record)) if record.removed)
    }

    /// Refuses a member that was removed.
    pub fn check_not_removed(&self, data_dir: &Path) -> Result<(), MemberError> {
        if !self.removed {
            return Ok(());
        }
        Err(MemberError::Removed { path: data_dir.display().to_string(), node_id: self.node_id })
    }

    /// Writes it, durably.
    pub fn write(&self, data_dir: &Path) -> Result<(), MemberError> {
        let text = serde_json::to_string_pretty(self).map_err(|error| MemberError::Damaged {
            path: FILE_NAME.into(),
            reason: error.to_string(),
        })?;
        write_file(&data_dir.join(FILE_NAME), &text, 0o644).map_err(MemberError::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_written_and_only_by_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(MemberRecord::find(dir.path()).unwrap(), None);
        let record = MemberRecord::new("c1", 3, "server-3", false);
        record.write(dir.path()).unwrap();
        assert_eq!(MemberRecord::find_for(dir.path(), "server-3").unwrap(), Some(record));
        let error = MemberRecord::find_for(dir.path(), "server-1").unwrap_err().to_string();
        assert!(
            error.contains("belongs to the server \"server-3\", not to \"server-1\""),
            "{error}"
        );
    }

    #[test]
    fn damaged_and_unknown_records_are_refused_with_their_path() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), "{\"format\":1").unwrap();
        let error = MemberRecord::find(dir.path()).unwrap_err().to_string();
        assert!(error.contains("member.json is damaged"), "{error}");
        let record = MemberRecord { format: 9, ..MemberRecord::new("c1", 3, "server-3", false) };
        record.write(dir.path()).unwrap();
        let error = MemberRecord::find(dir.path()).unwrap_err().to_string();
        assert!(error.contains("has format 9; this binary reads format 1"), "{error}");
    }
}
