//! One nftables table as data, and the shortest way from one to another.
//!
//! What holds for every [`Ruleset`] and is asserted when it is laid out: a chain or set that a rule
//! or an element names is in it, too. The declaration of a set and the hook of a chain never change
//! under one name: whoever needs another gives it another name.

use std::collections::BTreeMap;

/// What a set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Keys.
    Set,
    /// Keys with values.
    Map,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Map => "map",
        }
    }
}

/// A named set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Which of both.
    pub kind: Kind,
    /// Type and flags, as nft reads them.
    pub spec: String,
    /// Values by keys; the values of a set are empty.
    pub elements: BTreeMap<String, String>,
}

impl Set {
    /// A set or map without elements.
    pub fn new(kind: Kind, spec: impl Into<String>) -> Self {
        Self { kind, spec: spec.into(), elements: BTreeMap::new() }
    }
}

/// A chain of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where packets enter it by themselves; none for a chain that others lead to.
    pub hook: Option<String>,
    /// Its rules in order.
    pub rules: Vec<String>,
}

impl Chain {
    /// A chain that others lead to.
    pub fn of(rules: impl IntoIterator<Item = String>) -> Self {
        Self { hook: None, rules: rules.into_iter().collect() }
    }
}

/// All that stands in a table, or a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Sets and maps by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
}

/// One step from one ruleset to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Makes a set without elements.
    AddSet {
        /// Its name.
        name: String,
        /// Set or map.
        kind: Kind,
        /// Type and flags.
        spec: String,
    },
    /// Makes a chain without rules.
    AddChain {
        /// Its name.
        name: String,
        /// Where packets enter it.
        hook: Option<String>,
    },
    /// Takes elements out of a set.
    DeleteElements {
        /// The set.
        set: String,
        /// Their keys.
        keys: Vec<String>,
    },
    /// Takes all rules out of a chain.
    FlushChain(String),
    /// Appends a rule.
    AddRule {
        /// The chain.
        chain: String,
        /// The rule.
        rule: String,
    },
    /// Puts elements into a set.
    AddElements {
        /// The set.
        set: String,
        /// Keys and values.
        elements: Vec<(String, String)>,
    },
    /// Removes a chain that nothing leads to.
    DeleteChain(String),
    /// Removes a set that nothing names.
    DeleteSet(String),
}

/// The steps from `old` to `new`, in an order in which nothing named is missing at any time. Either
/// may be a part of a table, as long as both are the same part.
pub fn diff(old: &Ruleset, new: &Ruleset) -> Vec<Command> {
    let mut commands = Vec::new();
    for (name, set) in &new.sets {
        match old.sets.get(name) {
            None => commands.push(Command::AddSet {
                name: name.clone(),
                kind: set.kind,
                spec: set.spec.clone(),
            }),
            Some(before) => assert_eq!(before.spec, set.spec, "set {name} must stay what it is"),
        }
    }
    for (name, chain) in &new.chains {
        match old.chains.get(name) {
            None => {
                commands.push(Command::AddChain { name: name.clone(), hook: chain.hook.clone() });
            }
            Some(before) => assert_eq!(before.hook, chain.hook, "chain {name} must stay hooked"),
        }
    }
    for (name, set) in &old.sets {
        let kept = new.sets.get(name).map(|set| &set.elements);
        let keys: Vec<String> = set
            .elements
            .iter()
            .filter(|(key, value)| kept.is_none_or(|kept| kept.get(*key) != Some(*value)))
            .map(|(key, _)| key.clone())
            .collect();
        if !keys.is_empty() {
            commands.push(Command::DeleteElements { set: name.clone(), keys });
        }
    }
    for (name, chain) in &old.chains {
        let after = new.chains.get(name);
        if !chain.rules.is_empty() && after.is_none_or(|after| after.rules != chain.rules) {
            commands.push(Command::FlushChain(name.clone()));
        }
    }
    for (name, chain) in &new.chains {
        if old.chains.get(name).is_none_or(|before| before.rules != chain.rules) {
            let rule = |rule: &String| Command::AddRule { chain: name.clone(), rule: rule.clone() };
            commands.extend(chain.rules.iter().map(rule));
        }
    }
    for (name, set) in &new.sets {
        let before = old.sets.get(name).map(|set| &set.elements);
        let elements: Vec<(String, String)> = set
            .elements
            .iter()
            .filter(|(key, value)| before.is_none_or(|before| before.get(*key) != Some(*value)))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !elements.is_empty() {
            commands.push(Command::AddElements { set: name.clone(), elements });
        }
    }
    let gone = old.chains.keys().filter(|name| !new.chains.contains_key(*name));
    commands.extend(gone.cloned().map(Command::DeleteChain));
    let gone = old.sets.keys().filter(|name| !new.sets.contains_key(*name));
    commands.extend(gone.cloned().map(Command::DeleteSet));
    commands
}

/// The steps as nft reads them, for the table `table` such as `ip kontiki`.
pub fn render(table: &str, commands: &[Command]) -> String {
    let mut text = String::new();
    for command in commands {
        text.push_str(&line(table, command));
        text.push('\n');
    }
    text
}

fn line(table: &str, command: &Command) -> String {
    match command {
        Command::AddSet { name, kind, spec } => {
            format!("add {} {table} {name} {{ {spec} }}", kind.word())
        }
        Command::AddChain { name, hook: None } => format!("add chain {table} {name}"),
        Command::AddChain { name, hook: Some(hook) } => {
            format!("add chain {table} {name} {{ {hook}; policy accept; }}")
        }
        Command::DeleteElements { set, keys } => {
            format!("delete element {table} {set} {{ {} }}", keys.join(", "))
        }
        Command::FlushChain(name) => format!("flush chain {table} {name}"),
        Command::AddRule { chain, rule } => format!("add rule {table} {chain} {rule}"),
        Command::AddElements { set, elements } => {
            let elements: Vec<String> = elements
                .iter()
                .map(
                    |(key, value)| {
                        if value.is_empty() { key.clone() } else { format!("{key} : {value}") }
                    },
                )
                .collect();
            format!("add element {table} {set} {{ {} }}", elements.join(", "))
        }
        Command::DeleteChain(name) => format!("delete chain {table} {name}"),
        Command::DeleteSet(name) => format!("delete set {table} {name}"),
    }
}

/// All of a table in one transaction, whatever stands there before: established connections go on.
pub fn replace(table: &str, ruleset: &Ruleset) -> String {
    // The first line makes the table where there is none, so that the second cannot fail.
    let commands = diff(&Ruleset::default(), ruleset);
    format!(
        "add table {table}\ndelete table {table}\nadd table {table}\n{}",
        render(table, &commands)
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A table that takes commands as the kernel does: it refuses what names something missing and
    /// the removal of what something else names.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Kernel(pub(crate) Ruleset);

    impl Kernel {
        pub(crate) fn run(&mut self, commands: &[Command]) {
            for command in commands {
                self.step(command);
            }
            self.check();
        }

        fn step(&mut self, command: &Command) {
            let Ruleset { sets, chains } = &mut self.0;
            match command.clone() {
                Command::AddSet { name, kind, spec } => {
                    assert!(sets.insert(name.clone(), Set::new(kind, spec)).is_none(), "{name}");
                }
                Command::AddChain { name, hook } => {
                    let chain = Chain { hook, rules: Vec::new() };
                    assert!(chains.insert(name.clone(), chain).is_none(), "{name} is there");
                }
                Command::DeleteElements { set, keys } => {
                    let set = sets.get_mut(&set).expect("no such set");
                    for key in keys {
                        set.elements.remove(&key).expect("no such element");
                    }
                }
                Command::FlushChain(name) => {
                    chains.get_mut(&name).expect("no such chain").rules.clear();
                }
                Command::AddRule { chain, rule } => {
                    chains.get_mut(&chain).expect("no such chain").rules.push(rule);
                    self.check();
                }
                Command::AddElements { set, elements } => {
                    let set = sets.get_mut(&set).expect("no such set");
                    for (key, value) in elements {
                        assert_eq!(set.kind == Kind::Map, !value.is_empty(), "{key}");
                        assert!(set.elements.insert(key.clone(), value).is_none(), "{key}");
                    }
                    self.check();
                }
                Command::DeleteChain(name) => {
                    let chain = chains.remove(&name).expect("no such chain");
                    assert!(chain.rules.is_empty(), "{name} must be empty");
                    self.check();
                }
                Command::DeleteSet(name) => {
                    sets.remove(&name).expect("no such set");
                    self.check();
                }
            }
        }

        /// Everything that is named is there.
        pub(crate) fn check(&self) {
            let rules = self.0.chains.values().flat_map(|chain| chain.rules.iter());
            let values = self.0.sets.values().flat_map(|set| set.elements.values());
            for text in rules.chain(values) {
                for name in chains_of(text) {
                    assert!(self.0.chains.contains_key(&name), "{text}: no chain {name}");
                }
                for name in sets_of(text) {
                    assert!(self.0.sets.contains_key(&name), "{text}: no set {name}");
                }
            }
        }
    }

    fn chains_of(text: &str) -> BTreeSet<String> {
        let words: Vec<&str> = text.split([' ', ',']).collect();
        let named = words.windows(2).filter(|pair| ["goto", "jump"].contains(&pair[0]));
        named.map(|pair| pair[1].to_owned()).collect()
    }

    fn sets_of(text: &str) -> BTreeSet<String> {
        let words = text.split([' ', ',']);
        words.filter_map(|word| word.strip_prefix('@')).map(str::to_owned).collect()
    }

    fn ruleset(elements: &[(&str, &str)], chains: &[(&str, &[&str])]) -> Ruleset {
        let mut set = Set::new(Kind::Map, "type ipv4_addr : verdict;");
        set.elements = elements.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let chain = |rules: &&[&str]| Chain::of(rules.iter().map(|rule| (*rule).to_owned()));
        Ruleset {
            sets: [("m".to_owned(), set)].into(),
            chains: chains.iter().map(|(name, rules)| ((*name).into(), chain(rules))).collect(),
        }
    }

    #[test]
    fn a_changed_target_is_made_before_it_is_named_and_removed_after() {
        let old = ruleset(&[("10.0.0.1", "goto a")], &[("a", &["accept"])]);
        let new = ruleset(&[("10.0.0.1", "goto b")], &[("b", &["accept"])]);
        let commands = diff(&old, &new);
        let mut kernel = Kernel(old);
        kernel.run(&commands);
        assert_eq!(kernel.0, new);
        let text = render("ip t", &commands);
        assert_eq!(
            text,
            "add chain ip t b\ndelete element ip t m { 10.0.0.1 }\nflush chain ip t a\n\
             add rule ip t b accept\nadd element ip t m { 10.0.0.1 : goto b }\ndelete chain ip t a\n"
        );
    }

    #[test]
    fn what_stays_the_same_is_not_written() {
        let same = ruleset(&[("10.0.0.1", "goto a")], &[("a", &["accept"])]);
        assert_eq!(diff(&same, &same), []);
    }

    #[test]
    fn a_replacement_begins_with_nothing() {
        let text = replace("ip t", &ruleset(&[], &[("a", &["accept"])]));
        assert!(text.starts_with("add table ip t\ndelete table ip t\nadd table ip t\n"), "{text}");
    }
}
