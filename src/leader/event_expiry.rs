//! Events go an hour after their last write: they tell of the cluster's life, they do not fill its
//! store.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kontiki_api::client::Client;
use kontiki_api::object::Object;
use kontiki_api::registry::options::{DeleteOptions, ListOptions};
use kontiki_api::resources::event::KIND;
use kontiki_api::status::Status;
use serde_json::Value;
use tokio::time::sleep;
use tracing::warn;

/// How long an event stays, as upstream has it.
const LIFE: SignedDuration = SignedDuration::from_hours(1);
/// How often they are looked at.
const PERIOD: Duration = Duration::from_mins(1);
/// How many are in memory at once.
const PAGE: u64 = 500;

/// Removes events that are too old.
pub(super) async fn keep(client: &Client) {
    loop {
        sleep(PERIOD).await;
        if let Err(status) = remove_old(client, Timestamp::now()).await {
            warn!(%status, "removing old events");
        }
    }
}

async fn remove_old(client: &Client, now: Timestamp) -> Result<(), Status> {
    let mut page = ListOptions { limit: PAGE, ..ListOptions::default() };
    loop {
        let events = client.list_objects(&KIND, "", &page).await?;
        remove_of(client, &events.items, now).await?;
        if events.continue_token.is_empty() {
            return Ok(());
        }
        page.continue_token = events.continue_token;
    }
}

async fn remove_of(client: &Client, events: &[Object], now: Timestamp) -> Result<(), Status> {
    for event in events.iter().filter(|event| is_over(event, now)) {
        // One that is written meanwhile stays.
        let options = DeleteOptions {
            resource_version: Some(event.resource_version().to_owned()),
            ..DeleteOptions::default()
        };
        match client.delete_object(&KIND, event.namespace(), event.name(), &options).await {
            Err(status) if !status.is_not_found() && !status.is_conflict() => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

/// By the server's clock at its last write: what clients say of times does not count.
fn is_over(event: &Object, now: Timestamp) -> bool {
    let writes = event.at("/metadata/managedFields").and_then(Value::as_array);
    let writes = writes.into_iter().flatten().filter_map(|write| write.get("time")?.as_str());
    let last = writes.filter_map(|time| time.parse().ok()).chain(event.creation_timestamp()).max();
    last.is_some_and(|last: Timestamp| now.duration_since(last) > LIFE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_lives_for_an_hour_after_its_last_write() {
        let event = |created: &str, written: &str| {
            Object::new(json!({"metadata": {
                "creationTimestamp": created,
                "managedFields": [{"time": created}, {"time": written}],
            }, "lastTimestamp": "2030-01-01T00:00:00Z"}))
            .expect("an object")
        };
        let now = "2026-01-01T12:00:00Z".parse().expect("a time");
        assert!(is_over(&event("2026-01-01T10:00:00Z", "2026-01-01T10:59:59Z"), now));
        assert!(!is_over(&event("2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z"), now));
        assert!(!is_over(&event("2026-01-01T11:30:00Z", ""), now));
    }
}
