//! [`Verdict`]: what an authorizer says.

/// Whether somebody may do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decision {
    /// They may.
    Allow,
    /// They may not, whatever others say.
    Deny,
    /// Nothing is said: others are asked, and where nobody says anything, they may not.
    #[default]
    NoOpinion,
}

/// A decision with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// What was decided.
    pub decision: Decision,
    /// Why; may be empty.
    pub reason: String,
    /// What went wrong where somebody was asked; may be empty.
    pub error: String,
}

impl Verdict {
    /// They may.
    pub fn allow() -> Self {
        Self { decision: Decision::Allow, ..Self::default() }
    }

    /// They may, for a reason that may be empty.
    pub fn allow_because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::allow() }
    }

    /// Nothing is said, for a reason that may be empty.
    pub fn no_opinion(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::default() }
    }

    /// Whether they may.
    pub fn is_allowed(&self) -> bool {
        self.decision == Decision::Allow
    }

    /// Adds what others said before.
    #[must_use]
    pub(crate) fn after(mut self, earlier: &[Self]) -> Self {
        let joined = |of: fn(&Self) -> &str, last: &str| {
            let all = earlier.iter().map(of).chain([last]).filter(|text| !text.is_empty());
            all.collect::<Vec<_>>().join(", ")
        };
        self.error = joined(|one| &one.error, &self.error);
        if !self.is_allowed() {
            self.reason = joined(|one| &one.reason, &self.reason);
        }
        self
    }

    /// `Ok` where they may, otherwise why not (may be empty).
    pub fn into_result(self) -> Result<(), String> {
        match (self.is_allowed(), self.reason.is_empty()) {
            (true, _) => Ok(()),
            (false, true) => Err(self.error),
            (false, false) => Err(self.reason),
        }
    }
}

/// Of who only allows, or says why not.
impl From<Result<String, String>> for Verdict {
    fn from(found: Result<String, String>) -> Self {
        found.map_or_else(Self::no_opinion, Self::allow_because)
    }
}

/// The same of who gives no reason to allow.
impl From<Result<(), String>> for Verdict {
    fn from(found: Result<(), String>) -> Self {
        found.map(|()| String::new()).into()
    }
}
