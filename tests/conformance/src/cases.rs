//! The cases, a file for each part of the behaviours.

use crate::run::Case;

pub mod apps;
pub mod deployments;
pub mod jobs;
pub mod sets;

/// All of them.
pub fn all() -> impl Iterator<Item = Case> {
    [apps::CASES, deployments::CASES, jobs::CASES, sets::CASES].into_iter().flatten().copied()
}
