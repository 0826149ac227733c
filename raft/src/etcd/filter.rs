//! What etcd does to a range after it was read: filters by revision, other orders than that of the
//! keys. Such a range is read whole, and cut to its limit here; except that, as in etcd, the limit
//! comes first where a target but no order is named.

use std::cmp::Ordering;

use kontiki_storage::kv::{KeyValue, RangeResponse};
use tonic::Status;

use super::{convert, proto};
use proto::range_request::{SortOrder, SortTarget};

/// How a range is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    order: SortOrder,
    target: SortTarget,
    modified: (i64, i64),
    created: (i64, i64),
    limit: usize,
    keys_only: bool,
}

impl Plan {
    pub(super) fn of(request: &proto::RangeRequest) -> Result<Self, Box<Status>> {
        let invalid = || Box::new(Status::invalid_argument("etcdserver: invalid sort option"));
        Ok(Self {
            order: SortOrder::try_from(request.sort_order).map_err(|_| invalid())?,
            target: SortTarget::try_from(request.sort_target).map_err(|_| invalid())?,
            modified: (request.min_mod_revision, request.max_mod_revision),
            created: (request.min_create_revision, request.max_create_revision),
            limit: usize::try_from(request.limit).unwrap_or(0),
            keys_only: request.keys_only,
        })
    }

    /// Whether the store's own order and limit give what is asked for.
    pub(super) fn is_plain(&self) -> bool {
        let is_in_key_order = match (self.order, self.target) {
            (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => true,
            // As in etcd: a target without an order means ascending.
            _ => false,
        };
        is_in_key_order && !self.filters()
    }

    /// How many keys to read; 0 is all.
    pub(super) fn limit_to_read(&self) -> u64 {
        let is_cut_first = self.order == SortOrder::None && !self.filters();
        match self.limit as u64 {
            limit if self.is_plain() => limit,
            // One more, to know whether there is more.
            limit if limit > 0 && is_cut_first => limit + 1,
            _ => 0,
        }
    }

    fn filters(&self) -> bool {
        self.modified != (0, 0) || self.created != (0, 0)
    }

    /// Whether values are needed though only keys are wanted.
    pub(super) fn needs_values(&self) -> bool {
        self.target == SortTarget::Value
    }

    fn keeps(&self, kv: &KeyValue) -> bool {
        let within = |number: u64, (min, max): (i64, i64)| {
            let number = convert::signed(number);
            (min == 0 || number >= min) && (max == 0 || number <= max)
        };
        within(kv.mod_revision.get(), self.modified)
            && within(kv.create_revision.get(), self.created)
    }

    fn compare(&self, a: &KeyValue, b: &KeyValue) -> Ordering {
        match self.target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        }
    }

    /// The answer, without its header.
    pub(super) fn finish(&self, response: RangeResponse) -> proto::RangeResponse {
        let RangeResponse { mut kvs, mut more, count, .. } = response;
        if !self.is_plain() {
            kvs.retain(|kv| self.keeps(kv));
            match self.order {
                SortOrder::None | SortOrder::Ascend => kvs.sort_by(|a, b| self.compare(a, b)),
                SortOrder::Descend => kvs.sort_by(|a, b| self.compare(b, a)),
            }
            more = self.limit > 0 && kvs.len() > self.limit;
            if more {
                kvs.truncate(self.limit);
            }
            if self.keys_only {
                for kv in &mut kvs {
                    kv.value.clear();
                }
            }
        }
        let kvs = kvs.into_iter().map(convert::key_value).collect();
        proto::RangeResponse { header: None, kvs, more, count: convert::signed(count) }
    }
}

#[cfg(test)]
mod tests {
    use kontiki_storage::kv::Revision;

    use super::*;

    fn kv(key: &'static str, value: &'static str, modified: u64) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: value.into(),
            create_revision: Revision::new(modified),
            mod_revision: Revision::new(modified),
            version: 1,
            lease: 0,
        }
    }

    fn keys(request: &proto::RangeRequest) -> (String, bool) {
        let kvs = vec![kv("a", "3", 5), kv("b", "2", 4), kv("c", "1", 9)];
        let response = RangeResponse { revision: Revision::new(9), kvs, more: false, count: 3 };
        let answer = Plan::of(request).unwrap().finish(response);
        let keys = answer.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned());
        (keys.collect(), answer.more)
    }

    #[test]
    fn ranges_are_sorted_filtered_and_then_cut() {
        let by = |order, target, limit| proto::RangeRequest {
            sort_order: order as i32,
            sort_target: target as i32,
            limit,
            ..proto::RangeRequest::default()
        };
        assert_eq!(keys(&by(SortOrder::Descend, SortTarget::Key, 0)), ("cba".to_owned(), false));
        assert_eq!(keys(&by(SortOrder::Ascend, SortTarget::Value, 2)), ("cb".to_owned(), true));
        assert_eq!(keys(&by(SortOrder::None, SortTarget::Mod, 0)), ("bac".to_owned(), false));
        let filtered =
            proto::RangeRequest { min_mod_revision: 5, ..by(SortOrder::None, SortTarget::Key, 1) };
        assert_eq!(keys(&filtered), ("a".to_owned(), true));
    }

    #[test]
    fn a_limit_comes_before_the_sort_where_no_order_is_named() {
        let read = |order, target, min_mod_revision| {
            let request = proto::RangeRequest {
                sort_order: order as i32,
                sort_target: target as i32,
                limit: 2,
                min_mod_revision,
                ..proto::RangeRequest::default()
            };
            Plan::of(&request).unwrap().limit_to_read()
        };
        assert_eq!(read(SortOrder::None, SortTarget::Key, 0), 2);
        assert_eq!(read(SortOrder::None, SortTarget::Value, 0), 3);
        assert_eq!(read(SortOrder::Ascend, SortTarget::Value, 0), 0);
        assert_eq!(read(SortOrder::None, SortTarget::Value, 1), 0);
    }
}
