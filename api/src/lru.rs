//! [`Lru`]: a map that keeps what was asked for last.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// A map of at most so many entries: one more, and the one that was longest not asked for goes.
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    entries: HashMap<K, (u64, V)>,
    /// The keys by when they were last asked for.
    by_use: BTreeMap<u64, K>,
    uses: u64,
    entries_max: usize,
}

impl<K: Hash + Eq + Clone, V> Lru<K, V> {
    /// An empty one. Without room for anything it keeps one entry.
    pub(crate) fn new(entries_max: usize) -> Self {
        let entries_max = entries_max.max(1);
        Self { entries: HashMap::new(), by_use: BTreeMap::new(), uses: 0, entries_max }
    }

    /// What is kept under a key, which was asked for now.
    pub(crate) fn get(&mut self, key: &K) -> Option<&mut V> {
        let now = self.next_use();
        let (used, value) = self.entries.get_mut(key)?;
        if let Some(key) = self.by_use.remove(used) {
            self.by_use.insert(now, key);
        }
        *used = now;
        Some(value)
    }

    /// Keeps something, in place of what was under the key.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        let now = self.next_use();
        if let Some((used, _)) = self.entries.insert(key.clone(), (now, value)) {
            self.by_use.remove(&used);
        }
        self.by_use.insert(now, key);
        if self.entries.len() > self.entries_max
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.entries.remove(&oldest);
        }
        assert_eq!(self.entries.len(), self.by_use.len(), "each entry must have one last use");
    }

    /// What is kept under a key, made where there is nothing.
    pub(crate) fn get_or_insert_with(&mut self, key: &K, make: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(key) {
            self.insert(key.clone(), make());
        }
        self.get(key).expect("what was just inserted must be there")
    }

    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_longest_not_asked_for_goes_first() {
        let mut lru = Lru::new(2);
        lru.insert("a", 1);
        lru.insert("b", 2);
        assert_eq!(lru.get(&"a"), Some(&mut 1));
        lru.insert("c", 3);
        assert_eq!(lru.get(&"b"), None);
        assert_eq!(lru.get(&"a"), Some(&mut 1));
        lru.insert("a", 4);
        assert_eq!(*lru.get_or_insert_with(&"d", || 5), 5);
        assert_eq!(lru.get(&"c"), None);
        assert_eq!(lru.get(&"a"), Some(&mut 4));
    }
}
