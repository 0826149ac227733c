//! [`Set`]: a set of paths, as the tree that fieldsV1 is.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element::Element;
use super::place::Place;

/// The key of fieldsV1 that says of a path with others below it that it is in the set itself.
const SELF: &str = ".";

/// A set of paths. No node is kept that neither is in the set nor leads to one that is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set(BTreeMap<Element, Node>);

/// What the set says of one path and of those below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// The path itself is in the set.
    pub(super) is_member: bool,
    /// The paths below it.
    pub(super) below: Set,
}

impl Node {
    pub(super) fn member() -> Self {
        Self { is_member: true, below: Set::default() }
    }

    fn is_empty(&self) -> bool {
        !self.is_member && self.below.is_empty()
    }
}

impl Set {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a node in its place, if it says anything.
    pub(super) fn put(&mut self, element: Element, node: Node) {
        if node.is_empty() {
            self.0.remove(&element);
        } else {
            self.0.insert(element, node);
        }
    }

    /// What the set says below an element.
    pub(super) fn get(&self, element: &Element) -> Option<&Node> {
        self.0.get(element)
    }

    /// The paths in either.
    pub(super) fn union(mut self, other: &Self) -> Self {
        for (element, node) in &other.0 {
            let own = self.0.entry(element.clone()).or_default();
            own.is_member |= node.is_member;
            own.below = std::mem::take(&mut own.below).union(&node.below);
        }
        self
    }

    /// The paths in both.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |own, other| own && other)
    }

    /// The paths in this one and not in the other.
    pub(super) fn difference(&self, other: &Self) -> Self {
        self.combine(other, |own, other| own && !other)
    }

    /// The paths of this one that a rule keeps, which must keep none that are not members here.
    fn combine(&self, other: &Self, keeps: fn(bool, bool) -> bool) -> Self {
        let nothing = Node::default();
        let mut combined = Self::default();
        for (element, node) in &self.0 {
            let there = other.get(element).unwrap_or(&nothing);
            let is_member = keeps(node.is_member, there.is_member);
            let below = node.below.combine(&there.below, keeps);
            combined.put(element.clone(), Node { is_member, below });
        }
        combined
    }

    /// The set without the top-level fields that `covers` names, and all below them.
    pub(super) fn without_fields(mut self, covers: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|element, _| !matches!(element, Element::Field(name) if covers(name)));
        self
    }

    /// The set with every field of a struct that leads to a member: removing all members of a
    /// struct removes it too.
    pub(super) fn with_structs(&self, place: Place) -> Self {
        let mut all = Self::default();
        for (element, node) in &self.0 {
            let child = place.step(element);
            let is_struct = !node.below.is_empty() && child.is_field;
            let node = Node {
                is_member: node.is_member || is_struct,
                below: node.below.with_structs(child.place),
            };
            all.put(element.clone(), node);
        }
        all
    }

    /// Every path as messages write it: those that end here before those that go on.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, prefix: &str, paths: &mut Vec<String>) {
        let members = self.0.iter().filter(|(_, node)| node.is_member);
        paths.extend(members.map(|(element, _)| format!("{prefix}{element}")));
        for (element, node) in &self.0 {
            node.below.collect(&format!("{prefix}{element}"), paths);
        }
    }

    /// Reads fieldsV1; `None` where it is none.
    pub(super) fn parse(value: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (key, value) in value.as_object()?.iter().filter(|(key, _)| *key != SELF) {
            let below = Self::parse(value)?;
            let is_member = below.is_empty() || value.get(SELF).is_some();
            set.put(Element::parse(key)?, Node { is_member, below });
        }
        Some(set)
    }

    /// As fieldsV1 writes it.
    pub(super) fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (element, node) in &self.0 {
            let mut value = node.below.to_value();
            if let (true, false, Value::Object(below)) =
                (node.is_member, node.below.is_empty(), &mut value)
            {
                below.insert(SELF.to_owned(), Value::Object(Map::new()));
            }
            map.insert(element.text(), value);
        }
        Value::Object(map)
    }
}
