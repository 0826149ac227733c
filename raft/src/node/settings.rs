//! What openraft is told.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

use crate::config::NodeConfig;
use crate::error::NodeError;

/// How many entries one append message carries; `log_store::READ_BYTES` bounds it as well.
const APPEND_ENTRIES: u64 = 1024;

/// No lag is so large that a snapshot is sent where the log would do.
const NEVER_BY_LAG: u64 = 1 << 40;

/// How long sending a snapshot may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

/// After a peer could not be reached: the pauses before it is tried again.
const BACKOFF: &str = "20ms 40ms ...200ms";

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn openraft(config: &NodeConfig) -> Result<Arc<Config>, NodeError> {
    let settings = Config {
        cluster_name: config.cluster_id.clone(),
        heartbeat_interval: millis(config.timers.heartbeat),
        election_timeout_min: millis(config.timers.election_min),
        election_timeout_max: millis(config.timers.election_max),
        install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
        max_payload_entries: APPEND_ENTRIES,
        replication_lag_threshold: NEVER_BY_LAG,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.log.snapshot_every),
        max_in_snapshot_log_to_keep: config.log.keep,
        enable_pre_vote: Some(true),
        // A restarted leader asks for votes again, so that it never serves what it only
        // remembers.
        enable_leader_restore: Some(false),
        backoff: BACKOFF.to_owned(),
        ..Config::default()
    };
    let settings =
        settings.validate().map_err(|error| NodeError::Stopped { reason: error.to_string() })?;
    Ok(Arc::new(settings))
}
