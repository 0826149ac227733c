//! Deployments.

pub mod bounds;
pub mod plan;
pub mod revision;
pub mod scaling;
pub mod status;

#[cfg(test)]
mod tests;
