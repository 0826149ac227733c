//! What no transaction may contain, whatever the state: empty keys, too many operations, and a key
//! that two operations would change, since all changes of a transaction share one revision.
//!
//! The two branches of a transaction exclude each other, so both may put the same key.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::kv::{InvalidRequest, KeyRange, Op, RangeEnd, TXN_OPS_MAX, Txn};

pub(super) fn validate(txn: &Txn) -> Result<(), InvalidRequest> {
    check_shape(txn, TXN_OPS_MAX)?;
    changes(&txn.success)?;
    changes(&txn.failure)?;
    Ok(())
}

/// `left` is what the transactions around it have left of [`TXN_OPS_MAX`]: so it also bounds how deep
/// they are nested.
fn check_shape(txn: &Txn, left: usize) -> Result<(), InvalidRequest> {
    let most = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    let left = left.checked_sub(most).ok_or(InvalidRequest::TooManyOps)?;
    for compare in &txn.compare {
        check_range(&compare.range)?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Range(request) => check_range(&request.range)?,
            Op::Put { key, .. } => check_range(&KeyRange::key(key.clone()))?,
            Op::DeleteRange { range, .. } => check_range(range)?,
            Op::Txn(inner) => check_shape(inner, left)?,
        }
    }
    Ok(())
}

pub(crate) fn check_range(range: &KeyRange) -> Result<(), InvalidRequest> {
    if range.start.is_empty() && range.end == RangeEnd::Single {
        return Err(InvalidRequest::EmptyKey);
    }
    Ok(())
}

/// What a list of operations, done one after the other, may change.
#[derive(Default)]
struct Changes<'a> {
    puts: BTreeSet<&'a Bytes>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Changes<'a> {
    fn add_put(&mut self, key: &'a Bytes) -> Result<(), InvalidRequest> {
        if self.deletes.iter().any(|range| range.contains(key)) || !self.puts.insert(key) {
            return Err(InvalidRequest::DuplicateKey);
        }
        Ok(())
    }

    /// Adds a nested transaction, of which one branch or the other is done.
    fn add_either(&mut self, then: Self, otherwise: Self) -> Result<(), InvalidRequest> {
        let puts: BTreeSet<_> = then.puts.union(&otherwise.puts).copied().collect();
        for key in puts {
            self.add_put(key)?;
        }
        self.deletes.extend(then.deletes);
        self.deletes.extend(otherwise.deletes);
        Ok(())
    }
}

fn changes(ops: &[Op]) -> Result<Changes<'_>, InvalidRequest> {
    let mut all = Changes::default();
    // Deletions first, nested transactions next: every put is then checked against all of them.
    // One to the last key is passed over, as etcd does.
    all.deletes.extend(ops.iter().filter_map(|op| match op {
        Op::DeleteRange { range, .. } => Some(range).filter(|one| one.end != RangeEnd::Unbounded),
        _ => None,
    }));
    for op in ops {
        if let Op::Txn(txn) = op {
            all.add_either(changes(&txn.success)?, changes(&txn.failure)?)?;
        }
    }
    for op in ops {
        if let Op::Put { key, .. } = op {
            all.add_put(key)?;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Compare;

    fn branch(success: Vec<Op>) -> Txn {
        Txn { success, ..Txn::default() }
    }

    fn nested(success: Vec<Op>, failure: Vec<Op>) -> Op {
        Op::Txn(Box::new(Txn { compare: Vec::new(), success, failure }))
    }

    fn put(key: &'static str) -> Op {
        Op::put(key, "v")
    }

    fn delete(from: &'static str, before: &'static str) -> Op {
        Op::DeleteRange { range: KeyRange::between(from, before), prev_kv: false }
    }

    #[test]
    fn a_key_put_twice_is_refused_at_any_depth() {
        let duplicates = [
            vec![put("a"), put("a")],
            vec![put("a"), nested(vec![put("a")], vec![])],
            vec![put("a"), nested(vec![], vec![put("a")])],
            vec![nested(vec![put("a")], vec![]), nested(vec![], vec![put("a")])],
            vec![put("b"), delete("a", "c")],
            vec![delete("a", "c"), nested(vec![put("b")], vec![])],
            vec![nested(vec![delete("a", "c")], vec![]), put("b")],
        ];
        for ops in duplicates {
            let refused = branch(ops.clone()).validate();
            assert_eq!(refused, Err(InvalidRequest::DuplicateKey), "{ops:?}");
            let other = Txn { failure: ops, ..Txn::default() }.validate();
            assert_eq!(other, Err(InvalidRequest::DuplicateKey));
        }
    }

    #[test]
    fn branches_that_exclude_each_other_may_put_the_same_key() {
        let both = Txn { success: vec![put("a")], failure: vec![put("a")], ..Txn::default() };
        both.validate().unwrap();
        branch(vec![nested(vec![put("a")], vec![put("a")]), put("b")]).validate().unwrap();
        branch(vec![nested(vec![put("b")], vec![delete("a", "c")])]).validate().unwrap();
        branch(vec![delete("a", "c"), put("c"), delete("a", "b")]).validate().unwrap();
    }

    #[test]
    fn a_key_may_be_put_beside_a_deletion_to_the_last_key() {
        let from = |start| KeyRange { start: Bytes::from_static(start), end: RangeEnd::Unbounded };
        let delete = |start| Op::DeleteRange { range: from(start), prev_kv: false };
        branch(vec![delete(b"a"), put("b")]).validate().unwrap();
        branch(vec![put("b"), nested(vec![delete(b"\0")], vec![])]).validate().unwrap();
    }

    #[test]
    fn an_empty_key_is_refused_wherever_it_stands() {
        let empty = Err(InvalidRequest::EmptyKey);
        for op in [put(""), Op::get(""), Op::delete("")] {
            assert_eq!(branch(vec![op.clone()]).validate(), empty);
            assert_eq!(branch(vec![nested(vec![], vec![op])]).validate(), empty);
        }
        let compare = vec![Compare::unchanged_since("", crate::kv::Revision::ZERO)];
        assert_eq!(Txn { compare, ..Txn::default() }.validate(), empty);
        branch(vec![Op::DeleteRange { range: KeyRange::all(), prev_kv: false }])
            .validate()
            .unwrap();
    }

    #[test]
    fn too_many_operations_and_too_deep_a_nest_are_refused() {
        let many = branch((0..=TXN_OPS_MAX).map(|n| Op::get(format!("k{n}"))).collect());
        assert_eq!(many.validate(), Err(InvalidRequest::TooManyOps));
        let deep =
            (0..=TXN_OPS_MAX).fold(branch(vec![]), |txn, _| branch(vec![Op::Txn(txn.into())]));
        assert_eq!(deep.validate(), Err(InvalidRequest::TooManyOps));
        let inner = branch((0..TXN_OPS_MAX).map(|n| Op::get(format!("k{n}"))).collect());
        assert_eq!(branch(vec![Op::Txn(inner.into())]).validate(), Err(InvalidRequest::TooManyOps));
    }
}
