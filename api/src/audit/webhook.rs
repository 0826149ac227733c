//! Events to a webhook, in batches.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Url};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::outbound::{Kubeconfig, in_full};

/// How many events go at once.
const BATCH: usize = 400;
/// How long an event waits for others to go with.
const WAIT: Duration = Duration::from_secs(5);
/// How long a batch may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How often a batch is tried, and how long after the first failure; then half as long again.
const TRIES: u32 = 5;
const BACKOFF: Duration = Duration::from_secs(2);

/// Sends events.
pub(super) struct Sender {
    client: Client,
    url: Url,
    token: Option<String>,
}

impl Sender {
    pub(super) fn new(kubeconfig: &Kubeconfig) -> Result<Self, String> {
        let (client, url) = (kubeconfig.client()?, kubeconfig.url.clone());
        Ok(Self { client, url, token: kubeconfig.token.clone() })
    }

    /// Until nobody has events any more.
    pub(super) async fn run(self, mut events: mpsc::Receiver<Arc<Value>>) {
        while let Some(first) = events.recv().await {
            let mut batch = vec![first];
            let until = Instant::now() + WAIT;
            while batch.len() < BATCH {
                match timeout_at(until, events.recv()).await {
                    Ok(Some(event)) => batch.push(event),
                    Ok(None) | Err(_) => break,
                }
            }
            self.send(&batch).await;
        }
    }

    async fn send(&self, batch: &[Arc<Value>]) {
        let list = json!({
            "kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": batch,
        });
        let mut wait = BACKOFF;
        for attempt in 1..=TRIES {
            match self.post(&list).await {
                Ok(()) => return,
                Err(why) if attempt == TRIES => {
                    let events = batch.len();
                    tracing::error!(why, events, "the audit webhook took no events: dropped");
                }
                Err(why) => {
                    tracing::warn!(why, "the audit webhook took no events: trying again");
                    sleep(wait).await;
                    wait = wait * 3 / 2;
                }
            }
        }
    }

    async fn post(&self, list: &Value) -> Result<(), String> {
        let mut request = self.client.post(self.url.clone()).timeout(LIMIT).json(list);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(|error| in_full(&error))?;
        let code = answer.status();
        if code.is_success() { Ok(()) } else { Err(format!("it answered {code}")) }
    }
}
