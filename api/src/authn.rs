//! Who makes a request: a client certificate tells, or a bearer token, or nothing does.

pub(crate) mod bearer;
pub(crate) mod oidc;
pub(crate) mod webhook;
mod x509;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use oidc::config::AuthenticationConfig;
pub use webhook::TokenWebhookConfig;
pub(crate) use x509::ClientCertificates;

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// The name: a certificate's common name, or `system:…` for the cluster's own.
    pub name: String,
    /// What tells it from others that had the name before; may be empty.
    pub uid: String,
    /// The groups, `system:authenticated` or `system:unauthenticated` among them.
    pub groups: Vec<String>,
    /// What else who authenticated it knows.
    pub extra: BTreeMap<String, Vec<String>>,
    /// Whether it is a part of the server itself: then nobody outside decides what it may. Must never
    /// be set for who comes by a connection.
    pub is_in_process: bool,
}

/// The group of everybody who proved who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Who may do everything.
pub const MASTERS: &str = "system:masters";
/// The nodes' agents.
pub const NODES: &str = "system:nodes";
/// Who proves nothing.
pub const ANONYMOUS: &str = "system:anonymous";
/// All service accounts; with `:` and a namespace behind it, those of the namespace.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// What the names of service accounts begin with, before namespace, `:` and name.
pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

impl User {
    /// Somebody who proved who they are.
    pub fn authenticated(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// Nobody in particular.
    pub fn anonymous() -> Self {
        let groups = vec![UNAUTHENTICATED.into()];
        Self { name: ANONYMOUS.into(), groups, ..Self::default() }
    }

    /// A service account.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let of_namespace = format!("{SERVICE_ACCOUNTS}:{namespace}");
        let name = format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}");
        Self::authenticated(name, &[SERVICE_ACCOUNTS, &of_namespace])
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
