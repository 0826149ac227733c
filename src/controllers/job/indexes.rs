//! [`Indexes`]: the completed or failed indexes of an Indexed Job, as its status writes them
//! (`0,2-5,9`).

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::batch::v1::{Job, SuccessPolicy};
use k8s_openapi::api::core::v1::Pod;

/// The label and the annotation of a pod that say its index.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Indexes, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Indexes(BTreeSet<i32>);

impl Indexes {
    /// Reads a list of indexes; what is below 0 or not below `completions` is left out, and so is what
    /// cannot be read.
    pub fn parse(text: &str, completions: i32) -> Self {
        let mut indexes = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                indexes.extend(first.max(0)..=last.min(completions - 1));
            }
        }
        Self(indexes)
    }

    /// Whether an index is among them.
    pub fn has(&self, index: i32) -> bool {
        self.0.contains(&index)
    }

    /// Adds an index; whether it is new.
    pub fn insert(&mut self, index: i32) -> bool {
        self.0.insert(index)
    }

    /// How many there are.
    pub fn len(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn common(&self, other: &Self) -> i32 {
        i32::try_from(self.0.intersection(&other.0).count()).unwrap_or(i32::MAX)
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if(|next| *next == last + 1) {
                last = next;
            }
            f.write_str(separator)?;
            separator = ",";
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// Whether the Job's pods have indexes.
pub fn is_indexed(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.completion_mode.as_deref()) == Some("Indexed")
}

/// The index of a pod.
pub fn of_pod(pod: &Pod) -> Option<i32> {
    let text = pod.metadata.annotations.as_ref()?.get(COMPLETION_INDEX)?;
    text.parse().ok().filter(|index| *index >= 0)
}

/// Which rule of the success policy is met by these succeeded indexes.
pub fn met(policy: &SuccessPolicy, succeeded: &Indexes, completions: i32) -> Option<usize> {
    if succeeded.is_empty() {
        return None;
    }
    policy.rules.iter().position(|rule| match (&rule.succeeded_indexes, rule.succeeded_count) {
        (Some(wanted), count) => {
            let wanted = Indexes::parse(wanted, completions);
            succeeded.common(&wanted) >= count.unwrap_or(wanted.len())
        }
        (None, Some(count)) => succeeded.len() >= count,
        (None, None) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_read_and_written_as_ranges() {
        for (text, completions, expected) in [
            ("", 5, ""),
            ("0", 5, "0"),
            ("0,1", 5, "0,1"),
            ("0-2,4", 5, "0-2,4"),
            ("0-9", 5, "0-4"),
            ("3,1,2", 5, "1-3"),
            ("1,x,3", 5, "1,3"),
            ("1-2,4-6,8,9", 10, "1,2,4-6,8,9"),
        ] {
            assert_eq!(Indexes::parse(text, completions).to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_rule_is_met_by_its_indexes_its_count_or_both() {
        let rule = |indexes: Option<&str>, count| SuccessPolicy {
            rules: vec![k8s_openapi::api::batch::v1::SuccessPolicyRule {
                succeeded_indexes: indexes.map(str::to_owned),
                succeeded_count: count,
            }],
        };
        for (indexes, count, succeeded, expected) in [
            (Some("0-2"), None, "0-2", Some(0)),
            (Some("0-2"), None, "0,1", None),
            (Some("0-2"), Some(1), "1,4", Some(0)),
            (Some("0-2"), Some(2), "1,4", None),
            (None, Some(2), "1,4", Some(0)),
            (None, Some(1), "", None),
        ] {
            let succeeded = Indexes::parse(succeeded, 6);
            assert_eq!(
                met(&rule(indexes, count), &succeeded, 6),
                expected,
                "{indexes:?} {count:?}"
            );
        }
    }
}
