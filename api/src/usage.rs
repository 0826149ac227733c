//! [`Usage`]: what the nodes' agents measured last.
//!
//! A server asks an agent when somebody asks the server, and remembers the answer for as long as an
//! agent takes to measure anew. So every server can answer at any time, an idle cluster measures for
//! nobody, and no figure is ever stored. Rates come from the agents, which keep two readings: a
//! server that has just started knows as much as any other.

mod summary;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::kubelet::Kubelet;
use crate::object::Object;
use crate::status::Status;

pub(crate) use summary::{Figures, Point};

/// How long an answer holds: agents measure every ten seconds.
const FRESH: Duration = Duration::from_secs(10);
/// How long a node that could not be asked is left alone.
const SILENT: Duration = Duration::from_secs(15);
/// The longest that an agent is waited for.
const LIMIT: Duration = Duration::from_secs(5);
/// Agents asked at the same time.
const ASKED_MAX: usize = 64;
/// The longest answer of an agent that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// What nobody asked for during this time is forgotten.
const FORGOTTEN: Duration = Duration::from_mins(5);

/// What agents measured, by node.
#[derive(Default)]
pub(crate) struct Usage {
    nodes: Mutex<HashMap<String, Arc<Slot>>>,
}

/// What is known of one node. Who holds the lock asks the agent, the others wait for its answer.
#[derive(Default)]
struct Slot(tokio::sync::Mutex<Option<Known>>);

struct Known {
    /// The UID of the node: another one of the same name is another machine.
    uid: String,
    at: Instant,
    /// None where it could not be asked.
    figures: Option<Arc<Figures>>,
}

impl Known {
    fn holds(&self, uid: &str) -> bool {
        let ttl = if self.figures.is_some() { FRESH } else { SILENT };
        self.uid == uid && self.at.elapsed() < ttl
    }
}

impl Usage {
    /// The figures of these nodes, by name; without those that do not answer.
    pub(crate) async fn of(
        &self,
        kubelet: &Kubelet,
        nodes: &[Object],
    ) -> HashMap<String, Arc<Figures>> {
        self.forget();
        let places = Semaphore::new(ASKED_MAX);
        let mut asked = Vec::with_capacity(nodes.len());
        for node in nodes {
            asked.push(self.in_turn(&places, kubelet, node));
        }
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }

    async fn in_turn(
        &self,
        places: &Semaphore,
        kubelet: &Kubelet,
        node: &Object,
    ) -> Option<(String, Arc<Figures>)> {
        if is_lost(node) {
            return None;
        }
        let _place = places.acquire().await.ok()?;
        let figures = self.of_node(kubelet, node).await?;
        Some((node.name().to_owned(), figures))
    }

    async fn of_node(&self, kubelet: &Kubelet, node: &Object) -> Option<Arc<Figures>> {
        let slot = Arc::clone(self.nodes.lock().entry(node.name().to_owned()).or_default());
        let mut known = slot.0.lock().await;
        if let Some(known) = known.as_ref().filter(|known| known.holds(node.uid())) {
            return known.figures.clone();
        }
        let asked = tokio::time::timeout(LIMIT, ask(kubelet, node)).await;
        let asked = asked.unwrap_or_else(|_| Err(Status::timeout("the node did not answer")));
        let figures = match asked {
            Ok(figures) => Some(Arc::new(figures)),
            Err(status) => {
                tracing::debug!(node = node.name(), %status, "the node's figures are missing");
                None
            }
        };
        let now = Known { uid: node.uid().to_owned(), at: Instant::now(), figures };
        known.insert(now).figures.clone()
    }

    /// Forgets the nodes that nobody asks about any more, so that those that are gone do not stay.
    fn forget(&self) {
        self.nodes.lock().retain(|_, slot| {
            // One that is locked is being asked.
            let Ok(known) = slot.0.try_lock() else { return true };
            known.as_ref().is_some_and(|known| known.at.elapsed() < FORGOTTEN)
        });
    }
}

/// Whether nobody has heard of the node for a while: it is not waited for.
fn is_lost(node: &Object) -> bool {
    let conditions = node.at("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one["type"] == "Ready" && one["status"] == "Unknown")
}

async fn ask(kubelet: &Kubelet, node: &Object) -> Result<Figures, Status> {
    let query = [("only_cpu_and_memory", "true")];
    let mut content = kubelet.get(node, &["stats", "summary"], &query, LIMIT).await?;
    let mut text = Vec::new();
    while let Some(part) = content.next().await {
        let part = part.map_err(|error| Status::unavailable(format!("broken off: {error}")))?;
        if text.len() + part.len() > ANSWER_BYTES_MAX {
            return Err(Status::internal("the summary of the node is too long"));
        }
        text.extend_from_slice(&part);
    }
    Figures::parse(&text).map_err(|error| Status::internal(format!("no summary: {error}")))
}
