//! [`Audit`]: who did what, written down for those who ask later: to a file that is rotated, to a
//! webhook, or both.
//!
//! ```text
//!   chain/audit ──▶ Policy ──▶ Trail (the request's own: handlers and admission add to it)
//!        │                        │
//!        └── event ◀──────────────┘ ──▶ queue ──▶ file (a thread of its own)
//!                                   └─▶ queue ──▶ webhook (in batches)
//! ```
//!
//! A request waits for a place in the file's queue, so that nothing is left out while the disk is
//! slow. It does not wait for the webhook: what that does not take in time is dropped, and said. When
//! the server stops, what waits is still written ([`Audit::close`]).

mod event;
mod file;
pub(crate) mod policy;
mod sink;
mod trail;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

pub(crate) use event::{Begun, Outcome};
pub use file::AuditLog;
pub use policy::Policy;
pub(crate) use policy::{Level, Stage};
pub(crate) use trail::Trail;

use crate::outbound::Kubeconfig;
use sink::{End, Sink};

/// How many events wait for the file; who has more to write waits.
const FILE_QUEUE: usize = 1024;
/// How many wait for the webhook; more are dropped.
const WEBHOOK_QUEUE: usize = 10_000;
/// How long an event may wait for a place in the file's queue before it is dropped.
const FILE_PATIENCE: Duration = Duration::from_secs(5);
/// How long what waits may take to be written when the server stops.
const CLOSING: Duration = Duration::from_secs(10);

/// What is written down, and where.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// Of which requests.
    pub policy: Policy,
    /// To a file.
    pub log: Option<AuditLog>,
    /// To a webhook: the text of its kubeconfig.
    pub webhook: Option<String>,
}

/// Writes down what requests do.
pub(crate) struct Audit {
    pub(crate) policy: Policy,
    file: Option<Sink>,
    webhook: Option<Sink>,
}

impl Audit {
    /// Begins to. Must be called within a tokio runtime. The error says what is wrong.
    pub(crate) fn start(config: &AuditConfig) -> Result<Self, String> {
        let file = config.log.clone().map(to_file).transpose()?;
        let webhook = config.webhook.as_deref().map(to_webhook).transpose()?;
        Ok(Self { policy: config.policy.clone(), file, webhook })
    }

    /// Writes an event.
    pub(crate) async fn write(&self, event: Value) {
        let event = Arc::new(event);
        if let Some(file) = &self.file {
            file.put(Arc::clone(&event), FILE_PATIENCE).await;
        }
        self.tell(event);
    }

    /// The same for who cannot wait: where there is no place, others wait for it.
    pub(crate) fn write_now(&self, event: Value) {
        let event = Arc::new(event);
        if let Some(file) = &self.file {
            file.put_later(Arc::clone(&event), FILE_PATIENCE);
        }
        self.tell(event);
    }

    fn tell(&self, event: Arc<Value>) {
        if let Some(webhook) = &self.webhook {
            webhook.put_or_drop(event);
        }
    }

    /// Takes no more events, and waits a while until those taken are written.
    pub(crate) async fn close(&self) {
        let sinks = [&self.file, &self.webhook].into_iter().flatten();
        futures_util::future::join_all(sinks.map(|sink| sink.close(CLOSING))).await;
    }
}

fn to_file(log: AuditLog) -> Result<Sink, String> {
    let path = log.path.display().to_string();
    let mut file = file::Rotated::new(log);
    // Fails now rather than later where the file cannot be written.
    file.write(b"").map_err(|error| format!("the audit log {path}: {error}"))?;
    let (sink, mut events, end) = Sink::new("the audit log", FILE_QUEUE);
    let writing = move || {
        let _written: End = end;
        while let Some(event) = events.blocking_recv() {
            let mut line = event.to_string();
            line.push('\n');
            if let Err(error) = file.write(line.as_bytes()) {
                tracing::error!(%error, path, "writing the audit log");
            }
        }
    };
    let thread = std::thread::Builder::new().name("audit-log".into()).spawn(writing);
    thread.map_err(|error| format!("the audit log's thread: {error}"))?;
    Ok(sink)
}

fn to_webhook(kubeconfig: &str) -> Result<Sink, String> {
    let named = |why: String| format!("the audit webhook's kubeconfig: {why}");
    let kubeconfig = Kubeconfig::parse(kubeconfig).map_err(named)?;
    let sender = webhook::Sender::new(&kubeconfig).map_err(named)?;
    let (sink, events, end) = Sink::new("the audit webhook", WEBHOOK_QUEUE);
    tokio::spawn(async move {
        let _sent: End = end;
        sender.run(events).await;
    });
    Ok(sink)
}
