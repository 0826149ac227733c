//! What writes leave on the disk, and filling a store.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use kontiki_raft::etcd::proto::request_op::Request as RequestUnion;
use kontiki_raft::etcd::proto::{PutRequest, RequestOp, TxnRequest};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::etcd::{Etcd, KEY_BYTES, KEYS};
use super::load::ratio;

/// How many clients write.
const CLIENTS: u64 = 64;
/// Keys of one transaction; etcd takes 128 operations.
const BATCH: u64 = 128;
/// How long members may take to give room back after a compaction.
const SETTLE: Duration = Duration::from_secs(20);
/// Between two looks at the disk.
const POLL: Duration = Duration::from_millis(500);

/// Puts so often over the keys of the bench, compacts all that is old, and says how many times the
/// live data is on disk below `folder`, the least within a while.
pub async fn run(etcd: &Etcd, puts: u64, value_bytes: usize, folder: &Path) -> anyhow::Result<f64> {
    by_clients(
        etcd,
        puts,
        |etcd, client, number| async move { etcd.put_key(client, number).await },
    )
    .await?;
    etcd.compact().await?;
    let live = puts.min(KEYS) * u64::try_from(KEY_BYTES + value_bytes).context("count bytes")?;
    let until = Instant::now() + SETTLE;
    let mut least = u64::MAX;
    while Instant::now() < until {
        least = least.min(bytes_below(folder)?);
        sleep(POLL).await;
    }
    Ok(ratio(least, 1.0) / ratio(live, 1.0))
}

/// Puts `keys` keys with short values, many in one transaction.
pub async fn fill(etcd: &Etcd, keys: u64) -> anyhow::Result<()> {
    by_clients(etcd, keys.div_ceil(BATCH), move |etcd, client, number| async move {
        let put = |key: u64| {
            let key = format!("fill/{key:010}").into();
            let request = PutRequest { key, value: "v".into(), ..PutRequest::default() };
            RequestOp { request: Some(RequestUnion::RequestPut(request)) }
        };
        let range = number * BATCH..((number + 1) * BATCH).min(keys);
        let txn = TxnRequest { success: range.map(put).collect(), ..TxnRequest::default() };
        etcd.transact(client, txn).await
    })
    .await
}

/// Does `0..count`, spread over the clients.
async fn by_clients<F>(
    etcd: &Etcd,
    count: u64,
    each: impl Fn(Etcd, u64, u64) -> F + Copy + Send + 'static,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let etcd = etcd.clone();
        clients.spawn(async move {
            for number in (client..count).step_by(usize::try_from(CLIENTS).unwrap_or(1)) {
                each(etcd.clone(), client, number).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    Ok(())
}

/// Bytes that the files of a folder take up.
fn bytes_below(folder: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        // A file may go while it is looked at.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() {
            bytes_below(&entry.path()).unwrap_or(0)
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_folders_within_counts_and_holes_do_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("within")).unwrap();
        std::fs::write(dir.path().join("within/file"), vec![1; 1 << 20]).unwrap();
        let hole = std::fs::File::create(dir.path().join("hole")).unwrap();
        hole.set_len(1 << 30).unwrap();
        let bytes = bytes_below(dir.path()).unwrap();
        assert!((1 << 20..1 << 21).contains(&bytes), "{bytes}");
    }
}
