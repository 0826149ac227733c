//! When something is short: the kubelet's flags, and what they mean.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::signal::{Observation, SIGNALS, Signal};
use crate::quantity;

/// What the kubelet evicts at unless told otherwise.
pub const HARD: &str = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,\
                        imagefs.available<15%,imagefs.inodesFree<5%";

/// Why a flag of eviction cannot be used. The name of the flag is the caller's to say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ThresholdError(String);

/// An amount, or a part of what there is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Bytes, files or process ids.
    Amount(Quantity),
    /// Percent of the capacity.
    Percent(f32),
}

impl Value {
    /// How much that is of a capacity.
    pub fn of(&self, capacity: i64) -> i64 {
        match self {
            Self::Amount(amount) => quantity::whole(amount).unwrap_or(0),
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                reason = "upstream reckons so, and messages show it"
            )]
            Self::Percent(percent) => (capacity as f64 * f64::from(percent / 100.0)) as i64,
        }
    }

    /// As flags have it.
    pub fn written(&self) -> String {
        match self {
            Self::Amount(amount) => amount.0.clone(),
            Self::Percent(percent) => format!("{percent}%"),
        }
    }

    /// As messages show it.
    fn shown(&self, capacity: i64) -> String {
        match self {
            Self::Amount(Quantity(text)) if !text.ends_with('i') => {
                quantity::decimal(self.of(capacity))
            }
            _ => quantity::binary(self.of(capacity)),
        }
    }
}

/// Less than `value` of something is too little.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// Of what.
    pub signal: Signal,
    /// How much.
    pub value: Value,
    /// How long that may last before pods are ended; a hard threshold has none.
    pub grace: Option<Duration>,
    /// How much more must be won back than would just do.
    pub min_reclaim: Option<Value>,
}

impl Threshold {
    /// Whether too little is left.
    pub fn is_crossed(&self, seen: Observation) -> bool {
        self.value.of(seen.capacity) > seen.available
    }

    /// Whether too little was won back since it was crossed.
    pub fn is_unresolved(&self, seen: Observation) -> bool {
        let more = self.min_reclaim.as_ref().map_or(0, |more| more.of(seen.capacity));
        self.value.of(seen.capacity).saturating_add(more) > seen.available
    }

    /// The least amount, as messages show it.
    pub fn shown(&self, capacity: i64) -> String {
        self.value.shown(capacity)
    }
}

/// What flags say of thresholds, as they are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags<'a> {
    /// `SIGNAL<VALUE`, at once.
    pub hard: &'a str,
    /// `SIGNAL<VALUE`, after a grace period.
    pub soft: &'a str,
    /// `SIGNAL=DURATION`, for each soft one.
    pub soft_grace: &'a str,
    /// `SIGNAL=VALUE`.
    pub min_reclaim: &'a str,
}

/// The thresholds that flags ask for, hard ones first.
pub fn parse(flags: &Flags<'_>) -> Result<Vec<Threshold>, ThresholdError> {
    let graces = entries(flags.soft_grace, '=', duration)?;
    let reclaims = entries(flags.min_reclaim, '=', |text| amount(text, Least::Zero))?;
    let thresholds = |text| entries(text, '<', |text| amount(text, Least::Positive));
    let mut all = Vec::new();
    for (signal, value) in thresholds(flags.hard)? {
        all.extend(value.map(|value| (signal, value, None)));
    }
    for (signal, value) in thresholds(flags.soft)? {
        let Some(grace) = graces.get(&signal) else {
            let name = signal.name();
            return Err(ThresholdError(format!(
                "grace period must be specified for the soft eviction threshold {name}"
            )));
        };
        all.extend(value.map(|value| (signal, value, Some(*grace))));
    }
    let threshold = |(signal, value, grace)| Threshold {
        signal,
        value,
        grace,
        min_reclaim: reclaims.get(&signal).cloned().flatten(),
    };
    Ok(all.into_iter().map(threshold).collect())
}

/// A list such as `memory.available<1Gi,nodefs.available<10%`.
fn entries<V>(
    text: &str,
    between: char,
    read: impl Fn(&str) -> Result<V, String>,
) -> Result<BTreeMap<Signal, V>, ThresholdError> {
    let mut all = BTreeMap::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let wrong = |why: &str| ThresholdError(format!("{entry}: {why}"));
        let (name, value) = entry
            .split_once(between)
            .ok_or_else(|| wrong(&format!("expected SIGNAL{between}VALUE")))?;
        let signal = Signal::of_name(name.trim()).ok_or_else(|| {
            let known: Vec<_> = SIGNALS.into_iter().map(Signal::name).collect();
            wrong(&format!("unsupported eviction signal, expected one of {}", known.join(", ")))
        })?;
        if all.insert(signal, read(value.trim()).map_err(|why| wrong(&why))?).is_some() {
            return Err(wrong("the signal is named twice"));
        }
    }
    Ok(all)
}

/// The least value that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Least {
    Zero,
    Positive,
}

/// An amount or a percentage; `0%` and `100%` stand for no threshold, as upstream.
fn amount(text: &str, least: Least) -> Result<Option<Value>, String> {
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f32 = percent.parse().map_err(|_| "expected a percentage".to_owned())?;
        if !(0.0..=100.0).contains(&percent) {
            return Err("expected a percentage from 0% to 100%".to_owned());
        }
        let is_none = percent <= 0.0 || percent >= 100.0;
        return Ok((!is_none).then_some(Value::Percent(percent)));
    }
    let amount = Quantity(text.to_owned());
    match quantity::whole(&amount) {
        Some(0) if least == Least::Positive => Err("the value must be positive".to_owned()),
        Some(0..) => Ok(Some(Value::Amount(amount))),
        Some(_) => Err("the value must not be negative".to_owned()),
        None => Err("expected an amount such as 100Mi, or a percentage".to_owned()),
    }
}

/// A duration as Go writes it: `90s`, `1m30s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a duration such as 1m30s, not {text:?}");
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest == "0" {
        return Ok(total);
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0);
        let (number, after) = rest.split_at(end.ok_or_else(wrong)?);
        let number: u32 = number.parse().map_err(|_| wrong())?;
        let (unit, after) = match after {
            _ if after.starts_with("ms") => (Duration::from_millis(1), &after[2..]),
            _ if after.starts_with('s') => (Duration::from_secs(1), &after[1..]),
            _ if after.starts_with('m') => (Duration::from_secs(60), &after[1..]),
            _ if after.starts_with('h') => (Duration::from_secs(3600), &after[1..]),
            _ => return Err(wrong()),
        };
        total = total.checked_add(unit.checked_mul(number).ok_or_else(wrong)?).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_thresholds_are_the_kubelets() {
        let all = parse(&Flags { hard: HARD, ..Flags::default() }).unwrap();
        let at = |signal, capacity| {
            let found = all.iter().find(|threshold| threshold.signal == signal).unwrap();
            (found.value.of(capacity), found.shown(capacity), found.grace)
        };
        let memory = (100 << 20, "100Mi".to_owned(), None);
        assert_eq!(at(Signal::MemoryAvailable, 1 << 34), memory);
        assert_eq!(at(Signal::ImageFsAvailable, 1000).0, 150);
        assert_eq!(at(Signal::NodeFsInodesFree, 1000).0, 50);
        let gib = 1 << 30;
        let seen = |available| Observation { available, capacity: 100 * gib };
        let disk = all.iter().find(|one| one.signal == Signal::NodeFsAvailable).unwrap();
        assert!(disk.is_crossed(seen(9 * gib)) && !disk.is_crossed(seen(11 * gib)));
    }

    #[test]
    fn soft_thresholds_have_their_grace_and_both_what_must_be_won_back() {
        let flags = Flags {
            hard: "memory.available<1G",
            soft: "memory.available<1.5Gi,nodefs.available<20%",
            soft_grace: "memory.available=1m30s,nodefs.available=500ms",
            min_reclaim: "memory.available=500Mi",
        };
        let all = parse(&flags).unwrap();
        let graces: Vec<_> = all.iter().map(|one| one.grace).collect();
        let expected = [None, Some(Duration::from_secs(90)), Some(Duration::from_millis(500))];
        assert_eq!(graces, expected);
        assert_eq!((all[0].shown(0), all[1].shown(0)), ("1G".to_owned(), "1536Mi".to_owned()));
        let seen = Observation { available: 1_100_000_000, capacity: 1 << 34 };
        assert!(!all[0].is_crossed(seen) && all[0].is_unresolved(seen));
    }

    #[test]
    fn whole_percentages_and_nothing_are_no_thresholds() {
        for hard in ["", "nodefs.available<0%", "nodefs.available<100%, imagefs.available<0%"] {
            assert_eq!(parse(&Flags { hard, ..Flags::default() }), Ok(Vec::new()), "{hard}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (hard, soft, expected) in [
            ("memory<1Gi", "", "unsupported eviction signal"),
            ("memory.available=1Gi", "", "expected SIGNAL<VALUE"),
            ("memory.available<-1Gi", "", "must not be negative"),
            ("memory.available<0", "", "must be positive"),
            ("memory.available<x", "", "expected an amount"),
            ("nodefs.available<101%", "", "from 0% to 100%"),
            ("pid.available<1,pid.available<2", "", "named twice"),
            ("", "pid.available<1", "grace period must be specified for the soft"),
        ] {
            let error = parse(&Flags { hard, soft, ..Flags::default() }).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        for wrong in ["", "5", "s", "1d", "1.5h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
