//! Between [`Refusal`] and [`KvError`].

use kontiki_storage::kv::{InvalidRequest, KvError};

use super::{Refusal, Rule};

impl From<KvError> for Refusal {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Compacted { requested, compacted } => Self::Compacted { requested, compacted },
            KvError::FutureRevision { requested, current } => {
                Self::FutureRevision { requested, current }
            }
            KvError::Fenced { term, current } => Self::Fenced { term, current },
            KvError::Invalid(rule) => Self::Invalid(rule.into()),
            KvError::NoSpace => Self::NoSpace,
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<Refusal> for KvError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Compacted { requested, compacted } => Self::Compacted { requested, compacted },
            Refusal::FutureRevision { requested, current } => {
                Self::FutureRevision { requested, current }
            }
            Refusal::Fenced { term, current } => Self::Fenced { term, current },
            Refusal::Invalid(rule) => Self::Invalid(rule.into()),
            Refusal::Settled => Self::Unavailable {
                reason: "the proposal arrived after its proposer had given it up".to_owned(),
            },
            Refusal::Other(reason) => Self::Failed { reason },
            Refusal::NoSpace => Self::NoSpace,
        }
    }
}

impl From<InvalidRequest> for Rule {
    fn from(rule: InvalidRequest) -> Self {
        match rule {
            InvalidRequest::EmptyKey => Self::EmptyKey,
            InvalidRequest::DuplicateKey => Self::DuplicateKey,
            InvalidRequest::KeyNotFound => Self::KeyNotFound,
            InvalidRequest::TooManyOps => Self::TooManyOps,
            InvalidRequest::LeaseNotFound => Self::LeaseNotFound,
            InvalidRequest::LeaseExists => Self::LeaseExists,
            InvalidRequest::LeaseTooLong => Self::LeaseTooLong,
        }
    }
}

impl From<Rule> for InvalidRequest {
    fn from(rule: Rule) -> Self {
        match rule {
            Rule::EmptyKey => Self::EmptyKey,
            Rule::DuplicateKey => Self::DuplicateKey,
            Rule::KeyNotFound => Self::KeyNotFound,
            Rule::TooManyOps => Self::TooManyOps,
            Rule::LeaseNotFound => Self::LeaseNotFound,
            Rule::LeaseExists => Self::LeaseExists,
            Rule::LeaseTooLong => Self::LeaseTooLong,
        }
    }
}
