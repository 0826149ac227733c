//! Numbers of members: each is given once in the life of a cluster (R8).

use kontiki_storage::kv::{Compare, Kv, KvError, Op, OpResponse, Revision, Txn};

use crate::types::NodeId;

/// Where the last number that was given out stands. Below no path of the Kubernetes API.
const LAST_ID_KEY: &str = "/kontiki/members/last-id";

/// How often two may get into each other's way before one gives up.
const ATTEMPTS: u32 = 32;

/// The next number: one more than the last, by compare-and-set.
pub async fn allocate(kv: &dyn Kv) -> Result<NodeId, KvError> {
    for _ in 0..ATTEMPTS {
        let (last, revision) = last_id(kv).await?;
        let next = last + 1;
        let txn = Txn {
            compare: vec![Compare::unchanged_since(LAST_ID_KEY, revision)],
            success: vec![Op::put(LAST_ID_KEY, next.to_string())],
            failure: vec![],
        };
        if kv.txn(txn.into()).await?.succeeded {
            return Ok(next);
        }
    }
    let reason = "too many members are added at the same time; try again".to_owned();
    Err(KvError::Unavailable { reason })
}

/// The last number given out, and the revision of that. The founder's is 1.
async fn last_id(kv: &dyn Kv) -> Result<(NodeId, Revision), KvError> {
    let read = Txn { success: vec![Op::get(LAST_ID_KEY)], ..Txn::default() };
    let response = kv.txn(read.into()).await?;
    let Some(OpResponse::Range(range)) = response.responses.into_iter().next() else {
        return Err(KvError::Failed { reason: "a read gave no range".to_owned() });
    };
    let Some(found) = range.kvs.into_iter().next() else { return Ok((1, Revision::ZERO)) };
    let number = std::str::from_utf8(&found.value).ok().and_then(|text| text.parse().ok());
    let number = number.ok_or_else(|| KvError::Failed {
        reason: format!("{LAST_ID_KEY} does not hold a number"),
    })?;
    Ok((number, found.mod_revision))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use kontiki_storage::local::LocalKv;

    use super::*;

    #[tokio::test]
    async fn an_id_is_never_given_out_twice_however_many_ask_at_once() {
        let kv = Arc::new(LocalKv::in_memory());
        let asks = (0..8).map(|_| {
            let kv = Arc::clone(&kv);
            tokio::spawn(async move { allocate(&*kv).await.unwrap() })
        });
        let ids = futures_util::future::join_all(asks).await;
        let ids: HashSet<u64> = ids.into_iter().map(Result::unwrap).collect();
        assert_eq!(ids.len(), 8);
        assert!(!ids.contains(&1), "1 is the founder's");
    }
}
