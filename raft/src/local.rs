//! Proposals and read indexes at this very member, if it leads.

use futures_util::StreamExt as _;
use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, RaftError};
use tokio::time::Instant;

use crate::command::{Command, Outcome};
use crate::proto;
use crate::types::{Raft, TypeConfig};

const NO_QUORUM: &str = "no quorum acknowledged it in time";

/// What one attempt at a proposal came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// It was applied.
    Applied(Outcome),
    /// It was not taken: this attempt did nothing.
    NotDone(String),
    /// It may or may not be applied yet.
    Unknown(String),
}

/// Proposes at this member and waits until it is applied.
pub(crate) async fn propose(raft: &Raft, command: Command, deadline: Instant) -> Attempt {
    let Ok(written) = tokio::time::timeout_at(deadline, raft.client_write(command)).await else {
        return Attempt::Unknown(NO_QUORUM.to_owned());
    };
    match written {
        Ok(response) => Attempt::Applied(response.data),
        Err(RaftError::APIError(error)) => Attempt::refused(&error),
        Err(RaftError::Fatal(error)) => Attempt::Unknown(error.to_string()),
    }
}

/// What attempts at several proposals came to.
pub(crate) struct Attempts {
    /// One for each proposal.
    pub(crate) attempts: Vec<Attempt>,
    /// The place in the log of the last one that was applied; 0 where none was.
    pub(crate) applied_index: u64,
}

/// Proposes commands at this member, in one message to openraft, and waits until they are applied.
pub(crate) async fn propose_all(
    raft: &Raft,
    commands: Vec<Command>,
    deadline: Instant,
) -> Attempts {
    let all = commands.len();
    let (mut attempts, mut applied_index) = (Vec::with_capacity(all), 0);
    let reason = match tokio::time::timeout_at(deadline, raft.client_write_many(commands)).await {
        Ok(Ok(mut written)) => loop {
            match tokio::time::timeout_at(deadline, written.next()).await {
                Ok(Some(Ok(Ok(response)))) => {
                    applied_index = applied_index.max(response.log_id.index);
                    attempts.push(Attempt::Applied(response.response));
                }
                Ok(Some(Ok(Err(error)))) => attempts.push(Attempt::refused(&error)),
                Ok(Some(Err(fatal))) => break fatal.to_string(),
                Ok(None) => break "this member has stopped".to_owned(),
                Err(_) => break NO_QUORUM.to_owned(),
            }
        },
        Ok(Err(fatal)) => fatal.to_string(),
        Err(_) => NO_QUORUM.to_owned(),
    };
    attempts.resize(all, Attempt::Unknown(reason));
    Attempts { attempts, applied_index }
}

/// The index up to which a read that begins now must have applied (R4): of a round of heartbeats
/// that a quorum answers in this leader's term.
pub(crate) async fn read_index(raft: &Raft) -> Result<u64, String> {
    let linearizer =
        raft.get_read_linearizer(ReadPolicy::ReadIndex).await.map_err(|error| error.to_string())?;
    Ok(linearizer.read_log_id().index())
}

impl Attempt {
    fn refused(error: &ClientWriteError<TypeConfig>) -> Self {
        match error {
            ClientWriteError::ForwardToLeader(_) => {
                Self::NotDone("this member does not lead".to_owned())
            }
            error => Self::Unknown(error.to_string()),
        }
    }

    pub(crate) fn into_message(self) -> proto::Proposed {
        use proto::proposed::Result as R;
        let result = match self {
            Self::Applied(outcome) => R::Outcome(outcome.encode()),
            Self::NotDone(reason) => R::NotLeader(reason),
            Self::Unknown(reason) => R::Unknown(reason),
        };
        proto::Proposed { result: Some(result) }
    }

    pub(crate) fn from_message(message: proto::Proposed) -> Self {
        use proto::proposed::Result as R;
        match message.result {
            Some(R::Outcome(bytes)) => match Outcome::decode(&bytes) {
                Ok(outcome) => Self::Applied(outcome),
                Err(error) => Self::Unknown(format!("the leader's answer: {error}")),
            },
            Some(R::NotLeader(reason) | R::Busy(reason)) => Self::NotDone(reason),
            Some(R::Unknown(reason)) => Self::Unknown(reason),
            None => Self::Unknown("the leader's answer is empty".to_owned()),
        }
    }
}
