//! The table that is in force, kept Service by Service: a change costs what its Services cost.

use std::collections::{BTreeMap, BTreeSet};

use super::ruleset::{Command, Ruleset, diff};
use super::table::{Fragment, Slot, base, table};

/// Namespace and name of a Service.
pub type Key = (String, String);

/// All fragments, and who claims which element. Of several who claim the same, the first by name
/// has it, as in [`table`].
pub struct Index {
    bridge: String,
    fragments: BTreeMap<Key, Fragment>,
    claims: BTreeMap<Slot, BTreeMap<Key, String>>,
}

impl Index {
    /// No Service yet.
    pub fn new(bridge: &str) -> Self {
        Self { bridge: bridge.to_owned(), fragments: BTreeMap::new(), claims: BTreeMap::new() }
    }

    /// The whole table.
    pub fn ruleset(&self) -> Ruleset {
        table(&self.bridge, self.fragments.values())
    }

    /// Takes new fragments in the place of old ones, and says what that changes in the table.
    pub fn apply(&mut self, changes: Vec<(Key, Fragment)>) -> Vec<Command> {
        let changes: BTreeMap<Key, Fragment> =
            changes.into_iter().filter(|(key, new)| self.fragments.get(key) != Some(new)).collect();
        let touched: BTreeSet<Slot> = changes
            .iter()
            .flat_map(|(key, new)| self.fragments.get(key).into_iter().chain([new]))
            .flat_map(|fragment| fragment.elements.keys().cloned())
            .collect();
        let old = self.part(&touched, changes.keys());
        let keys: Vec<Key> = changes.keys().cloned().collect();
        for (key, new) in changes {
            self.replace(key, new);
        }
        let new = self.part(&touched, keys.iter());
        diff(&old, &new)
    }

    /// What the table has of these elements and of these Services' own.
    fn part<'a>(&self, touched: &BTreeSet<Slot>, keys: impl Iterator<Item = &'a Key>) -> Ruleset {
        let mut part = Ruleset { chains: BTreeMap::new(), ..base(&self.bridge) };
        for slot in touched {
            let claims = self.claims.get(slot).and_then(|claims| claims.values().next());
            if let (Some(value), Some(set)) = (claims, part.sets.get_mut(slot.0)) {
                set.elements.insert(slot.1.clone(), value.clone());
            }
        }
        for fragment in keys.filter_map(|key| self.fragments.get(key)) {
            part.sets.extend(fragment.own.sets.clone());
            part.chains.extend(fragment.own.chains.clone());
        }
        part
    }

    fn replace(&mut self, key: Key, new: Fragment) {
        if let Some(old) = self.fragments.remove(&key) {
            for slot in old.elements.into_keys() {
                if let Some(claims) = self.claims.get_mut(&slot) {
                    claims.remove(&key);
                    if claims.is_empty() {
                        self.claims.remove(&slot);
                    }
                }
            }
        }
        for (slot, value) in &new.elements {
            self.claims.entry(slot.clone()).or_default().insert(key.clone(), value.clone());
        }
        if new != Fragment::default() {
            self.fragments.insert(key, new);
        }
    }
}

#[cfg(test)]
mod tests;
