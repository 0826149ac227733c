//! The cases, a file for each part of the behaviours.

use crate::run::Case;

pub mod apps;

/// All of them.
pub fn all() -> impl Iterator<Item = Case> {
    [apps::CASES].into_iter().flatten().copied()
}
