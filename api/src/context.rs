//! [`RequestContext`]: who wants what, decided. Nothing reaches the registry without one, and one
//! is only made by an authorizer's consent (invariant A2).

use std::sync::Arc;

use jiff::Timestamp;
use kontiki_storage::kv::Term;
use parking_lot::Mutex;

use crate::audit::Trail;
use crate::authn::User;
use crate::authz::{self, Attributes, Authorizer, Verdict};
use crate::fairness::Seat;
use crate::status::Status;

/// Who wants what, allowed.
#[derive(Debug, Clone)]
pub struct RequestContext {
    user: Arc<User>,
    attributes: Attributes,
    /// Why it is allowed; may be empty.
    pub(crate) allowed_by: String,
    /// The moment that counts as now for everything this request does.
    pub now: Timestamp,
    /// Try everything, change nothing.
    pub dry_run: bool,
    /// Who is named as the manager of the fields written.
    pub field_manager: String,
    /// The term under which a leader-only task writes (invariant R9).
    pub fence: Option<Term>,
    /// Webhooks and policies have been asked about what this request is about, and its single writes
    /// are no longer their business.
    pub(crate) is_admitted: bool,
    /// Its place among the requests that are handled, where it came from a client.
    pub(crate) seat: Option<Arc<Seat>>,
    /// What is written down about it, where anything is.
    pub(crate) trail: Option<Arc<Trail>>,
    warnings: Arc<Mutex<Vec<String>>>,
}

impl RequestContext {
    /// The context of a request, if `authorizer` allows it from memory.
    #[cfg(test)]
    pub(crate) fn authorize(
        authorizer: &dyn Authorizer,
        user: Arc<User>,
        attributes: Attributes,
    ) -> Result<Self, Status> {
        let verdict = authorizer.at_once(&user, &attributes).unwrap_or_default();
        Self::of(verdict, user, attributes)
    }

    /// The context of a request, if `authorizer` allows it. The answer no is only taken on a state
    /// that is not an old one.
    pub async fn authorize_latest(
        authorizer: &dyn Authorizer,
        user: Arc<User>,
        attributes: Attributes,
    ) -> Result<Self, Status> {
        let verdict = authorizer.authorize(&user, &attributes).await;
        Self::of(verdict, user, attributes)
    }

    /// The same, of a request that has a place, which is left to others while somebody outside is
    /// asked.
    pub(crate) async fn authorize_seated(
        authorizer: &dyn Authorizer,
        user: Arc<User>,
        attributes: Attributes,
        seat: Option<Arc<Seat>>,
    ) -> Result<Self, Status> {
        let asked = authz::decide_seated(authorizer, &user, &attributes, seat.as_deref());
        let verdict = asked.await?;
        Ok(Self { seat, ..Self::of(verdict, user, attributes)? })
    }

    /// As upstream, who cannot be told whether they may is told of a fault, not of a refusal.
    fn of(mut verdict: Verdict, user: Arc<User>, attributes: Attributes) -> Result<Self, Status> {
        if !verdict.is_allowed() && !verdict.error.is_empty() {
            return Err(Status::internal(verdict.error));
        }
        let allowed_by =
            if verdict.is_allowed() { std::mem::take(&mut verdict.reason) } else { String::new() };
        if let Err(why) = verdict.into_result() {
            return Err(authz::refusal(&user, &attributes, &why));
        }
        Ok(Self {
            user,
            attributes,
            allowed_by,
            now: Timestamp::now(),
            dry_run: false,
            field_manager: String::new(),
            fence: None,
            is_admitted: false,
            seat: None,
            trail: None,
            warnings: Arc::default(),
        })
    }

    /// The same for the writes that follow from what was admitted.
    #[must_use]
    pub(crate) fn admitted(mut self) -> Self {
        self.is_admitted = true;
        self
    }

    /// Notes something in the audit log; what was noted first under a key stays.
    pub(crate) fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        if let Some(trail) = &self.trail {
            trail.annotate(key, value);
        }
    }

    /// Waits for somebody outside without holding a place that others need.
    pub(crate) async fn outside<T>(&self, work: impl Future<Output = T>) -> Result<T, Status> {
        match &self.seat {
            Some(seat) => seat.outside(work).await,
            None => Ok(work.await),
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
