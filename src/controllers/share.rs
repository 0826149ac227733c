//! Numbers and percentages (`maxSurge: 25%`) as numbers of pods.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// To which side a share of pods is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// In favour of more.
    Up,
    /// In favour of fewer.
    Down,
}

/// A number, or a percentage of `total`. What is neither counts as 0; validation refuses it before.
pub fn resolve(value: &IntOrString, total: i32, round: Round) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: i64 =
                text.strip_suffix('%').and_then(|number| number.parse().ok()).unwrap_or(0);
            let share = i64::from(total).saturating_mul(percent.max(0));
            let rounded = match round {
                Round::Up => share.saturating_add(99) / 100,
                Round::Down => share / 100,
            };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

/// A number of things as the API counts them.
pub fn count_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// A number that the API leaves out where it is 0.
pub fn nonzero(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}
