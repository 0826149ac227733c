//! Why the store cannot go on. What it refuses a caller is a [`KvError`]; what is here is fatal to
//! this member.

use thiserror::Error;

use crate::engine::EngineError;
use crate::kv::KvError;

/// A fault of the store itself. After one, this member applies nothing more (R6).
#[derive(Debug, Error)]
pub enum StoreError {
    /// The engine failed, or holds something damaged.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An earlier fault made the store stop.
    #[error("the store has stopped after an earlier error: {reason}")]
    Stopped {
        /// That error.
        reason: String,
    },
    /// A snapshot that was received is not what a snapshot must be. The state before it stands.
    #[error("the snapshot cannot be installed: {reason}")]
    Snapshot {
        /// What is wrong with it.
        reason: String,
    },
}

impl StoreError {
    /// The error with its causes, for messages that cross a process or a log line.
    pub fn reason(&self) -> String {
        let mut reason = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            reason.push_str(": ");
            reason.push_str(&cause.to_string());
            source = cause.source();
        }
        reason
    }
}

impl From<StoreError> for KvError {
    fn from(error: StoreError) -> Self {
        Self::Failed { reason: error.reason() }
    }
}

impl From<EngineError> for KvError {
    fn from(error: EngineError) -> Self {
        StoreError::from(error).into()
    }
}
