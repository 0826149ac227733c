//! [`Chain`]: authorizers in their order. The first that allows or denies decides; where none does,
//! nobody may.
//!
//! ```text
//!   known: from memory ─▶ decided
//!            │ a webhook has to be asked
//!            ▼
//!          ask it, note what it said ─▶ known, with that
//! ```

use std::sync::Arc;

use super::node::NodeAuthorizer;
use super::rbac::Rbac;
use super::webhook::{Considered, Question, Webhook};
use super::{Attributes, Decision, Verdict};
use crate::authn::User;

/// One that decides from memory. It must never deny: what it does not allow today may be allowed by
/// what it has not heard of yet.
pub(super) trait Local: Send + Sync {
    /// It allows, or says nothing.
    fn authorize(&self, user: &User, attributes: &Attributes) -> Verdict;
}

impl Local for NodeAuthorizer {
    fn authorize(&self, user: &User, attributes: &Attributes) -> Verdict {
        Self::authorize(self, user, attributes).into()
    }
}

impl Local for Rbac {
    fn authorize(&self, user: &User, attributes: &Attributes) -> Verdict {
        Self::authorize(self, user, attributes).into()
    }
}

/// One of those who are asked.
pub(super) enum Link {
    /// Somebody here.
    Local(Arc<dyn Local>),
    /// Somebody outside.
    Webhook(Box<Webhook>),
}

/// What those outside have said to one question, by their places in the chain.
#[derive(Default)]
pub(super) struct Said(Vec<(usize, Verdict)>);

impl Said {
    fn by(&self, place: usize) -> Option<Verdict> {
        self.0.iter().find(|(of, _)| *of == place).map(|(_, verdict)| verdict.clone())
    }
}

/// How far a question comes without asking anybody outside.
enum Step<'a> {
    Decided(Verdict),
    /// The webhook at this place has to be asked.
    Ask(usize, &'a Webhook, Box<Question>),
}

/// Authorizers in their order.
pub(super) struct Chain(Vec<Link>);

impl Chain {
    pub(super) fn new(links: Vec<Link>) -> Self {
        Self(links)
    }

    /// What is decided without asking anybody outside.
    pub(super) fn known(
        &self,
        user: &User,
        attributes: &Attributes,
        said: &Said,
    ) -> Option<Verdict> {
        match self.step(user, attributes, said) {
            Step::Decided(verdict) => Some(verdict),
            Step::Ask(..) => None,
        }
    }

    /// Decides; nobody outside who has said something is asked again.
    pub(super) async fn ask(
        &self,
        user: &User,
        attributes: &Attributes,
        said: &mut Said,
    ) -> Verdict {
        loop {
            match self.step(user, attributes, said) {
                Step::Decided(verdict) => return verdict,
                Step::Ask(place, webhook, question) => {
                    let verdict = webhook.ask(&question).await;
                    said.0.push((place, verdict));
                }
            }
        }
    }

    fn step(&self, user: &User, attributes: &Attributes, said: &Said) -> Step<'_> {
        let mut earlier = Vec::new();
        for (place, link) in self.0.iter().enumerate() {
            let verdict = match (link, said.by(place)) {
                (_, Some(verdict)) => verdict,
                (Link::Local(local), None) => local.authorize(user, attributes),
                (Link::Webhook(webhook), None) => match webhook.consider(user, attributes) {
                    Considered::Known(verdict) => verdict,
                    Considered::Ask(question) => return Step::Ask(place, webhook, question),
                },
            };
            if verdict.decision != Decision::NoOpinion {
                return Step::Decided(verdict.after(&earlier));
            }
            earlier.push(verdict);
        }
        Step::Decided(Verdict::default().after(&earlier))
    }
}

#[cfg(test)]
mod tests;
