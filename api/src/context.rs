//! [`RequestContext`]: who wants what, decided. Nothing reaches the registry without one, and one
//! is only made by an authorizer's consent (invariant A2).

use std::sync::Arc;

use jiff::Timestamp;
use kontiki_storage::kv::Term;
use parking_lot::Mutex;

use crate::authn::User;
use crate::authz::{Attributes, Authorizer};
use crate::status::Status;

/// Who wants what, allowed.
#[derive(Debug, Clone)]
pub struct RequestContext {
    user: Arc<User>,
    attributes: Attributes,
    /// The moment that counts as now for everything this request does.
    pub now: Timestamp,
    /// Try everything, change nothing.
    pub dry_run: bool,
    /// Who is named as the manager of the fields written.
    pub field_manager: String,
    /// The term under which a leader-only task writes (invariant R9).
    pub fence: Option<Term>,
    warnings: Arc<Mutex<Vec<String>>>,
}

impl RequestContext {
    /// The context of a request, if `authorizer` allows it.
    pub fn authorize(
        authorizer: &dyn Authorizer,
        user: Arc<User>,
        attributes: Attributes,
    ) -> Result<Self, Status> {
        authorizer
            .authorize(&user, &attributes)
            .map_err(|why| crate::authz::refusal(&user, &attributes, &why))?;
        Ok(Self::allowed(user, attributes))
    }

    /// The same, where the answer no is only taken on a state that is not an old one.
    pub async fn authorize_latest(
        authorizer: &dyn Authorizer,
        user: Arc<User>,
        attributes: Attributes,
    ) -> Result<Self, Status> {
        crate::authz::decide(authorizer, &user, &attributes)
            .await
            .map_err(|why| crate::authz::refusal(&user, &attributes, &why))?;
        Ok(Self::allowed(user, attributes))
    }

    fn allowed(user: Arc<User>, attributes: Attributes) -> Self {
        Self {
            user,
            attributes,
            now: Timestamp::now(),
            dry_run: false,
            field_manager: String::new(),
            fence: None,
            warnings: Arc::default(),
        }
    }

    /// Who.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// Who, to keep.
    pub fn shared_user(&self) -> Arc<User> {
        Arc::clone(&self.user)
    }

    /// What.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Tells the client something though the request is done.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock();
        if warnings.len() < WARNINGS_MAX && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// What the client is to be told.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().clone()
    }
}

/// More warnings than this are dropped.
const WARNINGS_MAX: usize = 64;
