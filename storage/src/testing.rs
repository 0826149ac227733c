//! The contract of [`Engine`] as checks that every engine must pass.

pub mod linearizability;

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use crate::engine::{Batch, Durability, Engine, Tree, Write};

/// An engine under test.
pub trait Fixture {
    /// The engine as it is now.
    fn engine(&self) -> &dyn Engine;

    /// Closes the engine in good order and opens it again.
    fn reopen(&mut self);

    /// Makes the engine do what it otherwise does in the background.
    fn settle(&self);
}

/// One step of a history of an engine.
#[derive(Debug, Clone)]
pub enum Step {
    /// Write a batch.
    Write(Batch, Durability),
    /// Make all durable.
    Sync,
    /// See [`Fixture::settle`].
    Settle,
    /// See [`Fixture::reopen`].
    Reopen,
}

/// All trees.
pub const TREES: [Tree; 5] = [Tree::Meta, Tree::Log, Tree::Raft, Tree::Versions, Tree::State];

type Model = BTreeMap<Tree, BTreeMap<Bytes, Bytes>>;

/// Takes an engine through a history and compares it with a model after every step.
///
/// # Panics
/// Where they differ.
pub fn check_history(fixture: &mut dyn Fixture, steps: &[Step]) {
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Write(batch, durability) => {
                batch.writes.iter().for_each(|write| apply(&mut model, write));
                fixture.engine().write(batch.clone(), *durability).expect("a write must succeed");
            }
            Step::Sync => fixture.engine().sync().expect("a sync must succeed"),
            Step::Settle => fixture.settle(),
            Step::Reopen => fixture.reopen(),
        }
        compare(fixture.engine(), &model);
    }
}

fn apply(model: &mut Model, write: &Write) {
    match write {
        Write::Put { tree, key, value } => {
            model.entry(*tree).or_default().insert(key.clone(), value.clone());
        }
        Write::Delete { tree, key } => {
            model.entry(*tree).or_default().remove(key);
        }
        Write::DeleteRange { tree, start, before } => {
            model.entry(*tree).or_default().retain(|key, _| key < start || key >= before);
        }
    }
}

fn compare(engine: &dyn Engine, model: &Model) {
    let empty = BTreeMap::new();
    for tree in TREES {
        let expected = model.get(&tree).unwrap_or(&empty);
        let last = expected.last_key_value().map(|(key, value)| (key.clone(), value.clone()));
        assert_eq!(engine.last(tree).expect("last must succeed"), last, "last of {tree:?}");
        let found = scan(engine, tree, Bound::Unbounded, Bound::Unbounded);
        assert!(found.iter().map(|(key, value)| (key, value)).eq(expected), "all of {tree:?}");
        for (key, value) in expected.iter().take(16) {
            let got = engine.get(tree, key).expect("get must succeed");
            assert_eq!(got.as_ref(), Some(value), "{key:?} of {tree:?}");
        }
        let Some((middle, _)) = expected.iter().nth(expected.len() / 2) else { continue };
        let bounds = [
            (Bound::Included(&middle[..]), Bound::Unbounded),
            (Bound::Excluded(&middle[..]), Bound::Unbounded),
            (Bound::Unbounded, Bound::Included(&middle[..])),
            (Bound::Unbounded, Bound::Excluded(&middle[..])),
        ];
        for (from, to) in bounds {
            let found = scan(engine, tree, from, to);
            let expected = expected.range::<[u8], _>((from, to));
            assert!(found.iter().map(|(key, value)| (key, value)).eq(expected), "{from:?} {to:?}");
        }
    }
}

fn scan(
    engine: &dyn Engine,
    tree: Tree,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
) -> Vec<(Bytes, Bytes)> {
    let mut found = Vec::new();
    let visit = &mut |key: &[u8], value: Bytes| {
        found.push((Bytes::copy_from_slice(key), value));
        ControlFlow::Continue(())
    };
    engine.scan(tree, from, to, visit).expect("a scan must succeed");
    found
}

/// Checks what a random history would hardly meet: see the names of the checks inside.
///
/// # Panics
/// Where the engine breaks its contract.
pub fn check_contract(fixture: &mut dyn Fixture) {
    an_empty_engine_has_nothing(fixture.engine());
    later_writes_of_a_batch_win(fixture.engine());
    a_scan_ends_when_told(fixture.engine());
    impossible_ranges_are_empty(fixture.engine());
    values_of_every_size_come_back(fixture);
    a_long_log_is_purged_and_truncated(fixture);
    many_writers_lose_nothing(fixture);
}

fn an_empty_engine_has_nothing(engine: &dyn Engine) {
    for tree in TREES {
        assert_eq!(engine.last(tree).expect("last must succeed"), None);
        assert_eq!(engine.get(tree, b"k").expect("get must succeed"), None);
    }
    engine.sync().expect("a sync of nothing must succeed");
    engine.write(Batch::default(), Durability::Now).expect("an empty batch must succeed");
}

fn later_writes_of_a_batch_win(engine: &dyn Engine) {
    let mut batch = Batch::default();
    batch.put(Tree::Meta, "a", "1");
    batch.put(Tree::Meta, "a", "2");
    batch.put(Tree::Meta, "b", "1");
    batch.delete_range(Tree::Meta, "a", "b");
    batch.put(Tree::Meta, "a", "3");
    batch.delete(Tree::Meta, "b");
    batch.delete(Tree::Meta, "never was");
    engine.write(batch, Durability::Now).expect("a write must succeed");
    let found = scan(engine, Tree::Meta, Bound::Unbounded, Bound::Unbounded);
    assert_eq!(found, [("a".into(), "3".into())]);
}

fn a_scan_ends_when_told(engine: &dyn Engine) {
    let mut batch = Batch::default();
    for number in 0..1000_u32 {
        batch.put(Tree::Raft, number.to_be_bytes().to_vec(), "v");
    }
    engine.write(batch, Durability::Later).expect("a write must succeed");
    let mut seen = 0;
    let visit = &mut |_: &[u8], _| {
        seen += 1;
        if seen == 700 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let all = (Bound::Unbounded, Bound::Unbounded);
    engine.scan(Tree::Raft, all.0, all.1, visit).expect("a scan must succeed");
    assert_eq!(seen, 700);
}

fn impossible_ranges_are_empty(engine: &dyn Engine) {
    let (low, high) = (&1_u32.to_be_bytes()[..], &9_u32.to_be_bytes()[..]);
    let impossible = [
        (Bound::Included(high), Bound::Included(low)),
        (Bound::Excluded(low), Bound::Excluded(low)),
        (Bound::Included(low), Bound::Excluded(low)),
    ];
    for (from, to) in impossible {
        assert!(scan(engine, Tree::Raft, from, to).is_empty());
    }
    let mut batch = Batch::default();
    batch.delete_range(Tree::Raft, high.to_vec(), low.to_vec());
    engine.write(batch, Durability::Now).expect("a write must succeed");
    assert_eq!(scan(engine, Tree::Raft, Bound::Unbounded, Bound::Unbounded).len(), 1000);
}

fn values_of_every_size_come_back(fixture: &mut dyn Fixture) {
    let sizes = [0, 1, 14 << 10, (14 << 10) + 1, 100_000, 1_500_000, 16 << 20];
    let value = |size: usize, salt: usize| {
        let bytes = (0..size).map(|at| u8::try_from((at * 31 + salt) % 251).expect("below 251"));
        bytes.collect::<Bytes>()
    };
    let check = |engine: &dyn Engine, salt: usize| {
        for size in sizes {
            let found = engine.get(Tree::State, size.to_string().as_bytes());
            assert!(found.expect("get must succeed") == Some(value(size, salt)), "{size} bytes");
        }
    };
    for salt in [0, 7] {
        for size in sizes {
            let mut batch = Batch::default();
            batch.put(Tree::State, size.to_string(), value(size, salt));
            fixture.engine().write(batch, Durability::Now).expect("a write must succeed");
        }
        check(fixture.engine(), salt);
        fixture.settle();
        check(fixture.engine(), salt);
        fixture.reopen();
        check(fixture.engine(), salt);
    }
}

fn a_long_log_is_purged_and_truncated(fixture: &mut dyn Fixture) {
    let key = |index: u64| index.to_be_bytes().to_vec();
    for start in (0..5000_u64).step_by(100) {
        let mut batch = Batch::default();
        for index in start..start + 100 {
            batch.put(Tree::Log, key(index), vec![1; 700]);
        }
        fixture.engine().write(batch, Durability::Later).expect("a write must succeed");
        if start % 1000 == 0 {
            fixture.settle();
        }
    }
    let mut batch = Batch::default();
    batch.delete_range(Tree::Log, key(0), key(3210));
    batch.delete_range(Tree::Log, key(4321), key(u64::MAX));
    batch.put(Tree::Log, key(4321), "again");
    fixture.engine().write(batch, Durability::Now).expect("a write must succeed");
    for round in 0..3 {
        let engine = fixture.engine();
        let found = scan(engine, Tree::Log, Bound::Unbounded, Bound::Unbounded);
        let keys: Vec<_> = found.iter().map(|(key, _)| key.to_vec()).collect();
        assert_eq!(keys, (3210..=4321).map(key).collect::<Vec<_>>(), "round {round}");
        let last = engine.last(Tree::Log).expect("last must succeed");
        assert_eq!(last, Some((key(4321).into(), "again".into())));
        if round == 0 {
            fixture.settle();
        } else {
            fixture.reopen();
        }
    }
    let mut batch = Batch::default();
    batch.delete_range(Tree::Log, key(0), key(u64::MAX));
    fixture.engine().write(batch, Durability::Now).expect("a write must succeed");
    assert_eq!(fixture.engine().last(Tree::Log).expect("last must succeed"), None);
    fixture.settle();
    assert_eq!(fixture.engine().last(Tree::Log).expect("last must succeed"), None);
}

fn many_writers_lose_nothing(fixture: &mut dyn Fixture) {
    let engine = fixture.engine();
    std::thread::scope(|scope| {
        for writer in 0..8_u32 {
            scope.spawn(move || {
                for number in 0..50_u32 {
                    let mut batch = Batch::default();
                    let key = [writer.to_be_bytes(), number.to_be_bytes()].concat();
                    batch.put(Tree::Versions, key.clone(), key.clone());
                    let durability =
                        if number % 3 == 0 { Durability::Later } else { Durability::Now };
                    engine.write(batch, durability).expect("a write must succeed");
                    let read = engine.get(Tree::Versions, &key).expect("get must succeed");
                    assert_eq!(read, Some(key.into()), "a write that returned must be visible");
                }
            });
        }
    });
    fixture.reopen();
    let found = scan(fixture.engine(), Tree::Versions, Bound::Unbounded, Bound::Unbounded);
    assert_eq!(found.len(), 400);
}
