//! Who makes a request.

mod x509;

use std::sync::Arc;

pub(crate) use x509::ClientCertificates;

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name: a certificate's common name, or `system:…` for the cluster's own.
    pub name: String,
    /// The groups, `system:authenticated` or `system:unauthenticated` among them.
    pub groups: Vec<String>,
}

/// The group of everybody who proved who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Who may do everything.
pub const MASTERS: &str = "system:masters";
/// The nodes' agents.
pub const NODES: &str = "system:nodes";

impl User {
    /// Somebody who proved who they are.
    pub fn authenticated(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        Self { name: name.into(), groups }
    }

    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".into(), groups: vec![UNAUTHENTICATED.into()] }
    }

    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// What a connection says of who is at its other end. It stands in the extensions of each request.
#[derive(Debug, Clone)]
pub(crate) enum Peer {
    /// Somebody with a good certificate.
    Known(Arc<User>),
    /// Somebody without a certificate.
    Anonymous,
    /// Somebody whose certificate is not good, and why.
    Refused(Arc<str>),
}
