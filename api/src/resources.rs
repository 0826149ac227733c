//! The kinds, one file each.

use crate::registry::strategy::Kind;

/// Every kind the server knows, in the order in which discovery shows them.
pub static KINDS: &[&Kind] = &[];
