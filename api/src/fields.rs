//! Who owns which field: `metadata.managedFields` and server-side apply.
//!
//! ```text
//!   place     what of a type decides how fields are owned: list types, map keys, atomic
//!   element   one step of a path: f:name  k:{"name":"web"}  v:"a"  i:0
//!   set       a set of paths, as fieldsV1 writes it
//!   entries   metadata.managedFields: a set each for manager, operation, subresource, version
//!
//!   owned     the paths that an object sets          compare   what differs between two objects
//!   merge     an object with a configuration in it   remove    an object without some paths
//!
//!   update    a write that is no apply: who changes a field owns it
//!   apply     a configuration: who leaves a field out gives it up; who takes one is refused
//!   configure what is set by who owns nothing: admission policies
//!   migrate   from `kubectl apply` without --server-side
//! ```
//!
//! Everything here is pure. Versions of a kind have the same fields (there is no conversion between
//! versions that moves any), so the sets of all versions are compared as they are.

mod apply;
mod check;
mod compare;
mod configure;
mod element;
mod entries;
mod merge;
mod migrate;
mod owned;
mod place;
mod remove;
mod set;
mod update;

use jiff::Timestamp;

pub use apply::{ApplyError, Conflict, Conflicts, apply};
pub use check::check;
pub use configure::configure;
pub use entries::same_but_times;
pub use place::Place;
pub use set::Set;
pub use update::update;

/// The longest name of a field manager, in bytes.
pub const MANAGER_BYTES_MAX: usize = 128;

/// Who writes, and which part of the object.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The name of the field manager.
    pub manager: &'a str,
    /// The version of the object as it was sent.
    pub api_version: &'a str,
    /// The subresource, or empty.
    pub subresource: &'a str,
    /// The moment of the write.
    pub now: Timestamp,
    /// What a write of this part cannot change.
    pub reset: Reset,
}

/// The fields that a part's strategy takes from the stored object, so that who sends them does not
/// own them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// Nothing: all that is sent counts.
    Nothing,
    /// The status.
    Status,
    /// Everything but the status and the metadata.
    AllButStatus,
}

impl Reset {
    /// Whether a top-level field is reset.
    fn covers(self, field: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Status => field == "status",
            Self::AllButStatus => !matches!(field, "status" | "metadata" | "apiVersion" | "kind"),
        }
    }
}

/// The manager of a request: the one it names, or the first word of its `User-Agent`.
pub fn manager_of(named: &str, user_agent: &str) -> String {
    if !named.is_empty() {
        return named.to_owned();
    }
    let mut manager = String::new();
    let program = user_agent.split('/').next().unwrap_or_default();
    for letter in program.chars().filter(|letter| !letter.is_control()) {
        if manager.len() + letter.len_utf8() > MANAGER_BYTES_MAX {
            break;
        }
        manager.push(letter);
    }
    manager
}

#[cfg(test)]
mod tests;
