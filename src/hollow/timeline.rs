//! The pods of all hollow nodes over time: one watch sees them, each one's next act waits for its
//! moment, and is done beside the others.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::api::{Api, Event};
use super::node;
use super::pods::{Act, Seen, plan, status};
use super::{Config, REQUESTS_MAX};

/// Pods that have a node. Those of others are left out after they are read.
const BOUND: &str = "/api/v1/pods?fieldSelector=spec.nodeName%21%3D";
/// Objects of one answer.
const PAGE: u32 = 1000;
/// Changes on their way from the watch; the watch waits when it is full.
const CHANGES: usize = 1024;
/// Before the pods are listed anew after an error, and an act is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// The longest sleep.
const IDLE: Duration = Duration::from_mins(1);

/// What the watch tells.
enum Change {
    /// The pod is like this.
    Is(Box<Seen>),
    /// It is no more.
    Gone(String),
    /// Only these are there.
    All(Vec<Seen>),
}

/// Acts for pods until `stop`.
pub(super) async fn run(api: Arc<Api>, config: Arc<Config>, stop: CancellationToken) {
    let (sender, mut changes) = mpsc::channel(CHANGES);
    let watching = follow(Arc::clone(&api), sender);
    let watching = tokio::spawn(stop.clone().run_until_cancelled_owned(watching));
    let mut timeline = Timeline::default();
    let mut acts: JoinSet<(String, anyhow::Result<()>)> = JoinSet::new();
    loop {
        while acts.len() < REQUESTS_MAX
            && let Some((pod, act)) = timeline.next(Instant::now())
        {
            acts.spawn(act_on(Arc::clone(&api), pod, act));
        }
        let wake = timeline.wake().filter(|_| acts.len() < REQUESTS_MAX);
        let wake = wake.unwrap_or_else(|| Instant::now() + IDLE);
        // Each arm is cancel-safe: what is not taken stays where it is.
        tokio::select! {
            () = stop.cancelled() => break,
            change = changes.recv() => match change {
                Some(change) => timeline.apply(change, &config, Instant::now()),
                None => break,
            },
            Some(done) = acts.join_next(), if !acts.is_empty() => {
                if let Ok((uid, Err(error))) = done {
                    debug!(uid, error = format!("{error:#}"), "trying again");
                    timeline.again(&uid, Instant::now() + RETRY);
                }
            }
            () = tokio::time::sleep_until(wake) => {}
        }
    }
    acts.shutdown().await;
    drop(changes);
    drop(watching.await);
}

async fn act_on(api: Arc<Api>, pod: Arc<Seen>, act: Act) -> (String, anyhow::Result<()>) {
    let meta = &pod.metadata;
    let path = format!("/api/v1/namespaces/{}/pods/{}", meta.namespace, meta.name);
    let done = match act {
        Act::Remove => api.delete(&path, Some(&meta.uid)).await,
        act => api.patch_status_if_there(&path, &status(&pod, act, Timestamp::now())).await,
    };
    (meta.uid.clone(), done)
}

/// The pods, and when something is to be done about each.
#[derive(Default)]
struct Timeline {
    pods: HashMap<String, Entry>,
    moments: BTreeSet<(Instant, String)>,
}

struct Entry {
    pod: Arc<Seen>,
    act: Option<Act>,
    at: Option<Instant>,
}

impl Timeline {
    fn apply(&mut self, change: Change, config: &Config, now: Instant) {
        match change {
            Change::Is(pod) => self.see(*pod, config, now),
            Change::Gone(uid) => self.forget(&uid),
            Change::All(pods) => {
                let present: BTreeSet<&str> =
                    pods.iter().map(|pod| pod.metadata.uid.as_str()).collect();
                let gone = self.pods.keys().filter(|uid| !present.contains(uid.as_str()));
                for uid in gone.cloned().collect::<Vec<_>>() {
                    self.forget(&uid);
                }
                for pod in pods {
                    self.see(pod, config, now);
                }
            }
        }
    }

    fn see(&mut self, pod: Seen, config: &Config, now: Instant) {
        if node::index_of(&pod.spec.node_name, config.nodes).is_none() {
            return;
        }
        let uid = pod.metadata.uid.clone();
        let planned = plan(&pod, &config.life);
        if let Some(known) = self.pods.get_mut(&uid)
            && known.act == planned.map(|(act, _)| act)
        {
            // It has its moment, or is being acted on.
            known.pod = Arc::new(pod);
            return;
        }
        self.forget(&uid);
        let at = planned.map(|(_, delay)| now + delay);
        let act = planned.map(|(act, _)| act);
        self.moments.extend(at.map(|at| (at, uid.clone())));
        self.pods.insert(uid, Entry { pod: Arc::new(pod), act, at });
    }

    fn forget(&mut self, uid: &str) {
        if let Some(at) = self.pods.remove(uid).and_then(|entry| entry.at) {
            self.moments.remove(&(at, uid.to_owned()));
        }
    }

    /// The next act whose moment has come.
    fn next(&mut self, now: Instant) -> Option<(Arc<Seen>, Act)> {
        let (at, uid) = self.moments.first().filter(|(at, _)| *at <= now)?.clone();
        self.moments.remove(&(at, uid.clone()));
        let entry = self.pods.get_mut(&uid)?;
        entry.at = None;
        Some((Arc::clone(&entry.pod), entry.act?))
    }

    /// Puts an act that failed back.
    fn again(&mut self, uid: &str, at: Instant) {
        if let Some(entry) = self.pods.get_mut(uid)
            && entry.at.is_none()
        {
            entry.at = Some(at);
            self.moments.insert((at, uid.to_owned()));
        }
    }

    fn wake(&self) -> Option<Instant> {
        self.moments.first().map(|(at, _)| *at)
    }
}

/// Lists and watches the bound pods, for as long as somebody listens.
async fn follow(api: Arc<Api>, sink: mpsc::Sender<Change>) {
    while !sink.is_closed() {
        if let Err(error) = follow_once(&api, &sink).await {
            warn!(error = format!("{error:#}"), "the pods are listed anew");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow_once(api: &Api, sink: &mpsc::Sender<Change>) -> anyhow::Result<()> {
    let (all, mut revision) = list(api).await?;
    sink.send(Change::All(all)).await.context("nobody listens")?;
    loop {
        let path =
            format!("{BOUND}&watch=true&allowWatchBookmarks=true&resourceVersion={revision}");
        // A watch that ends at once is not begun again at once.
        let next = Instant::now() + RETRY;
        let mut events = api.watch(&path).await?;
        while let Some(event) = events.next().await? {
            if let Some(seen) = event.object["metadata"]["resourceVersion"].as_str() {
                seen.clone_into(&mut revision);
            }
            if let Some(change) = change(event)? {
                sink.send(change).await.context("nobody listens")?;
            }
        }
        tokio::time::sleep_until(next).await;
    }
}

fn change(event: Event) -> anyhow::Result<Option<Change>> {
    let Event { kind, object } = event;
    if !matches!(kind.as_str(), "ADDED" | "MODIFIED" | "DELETED") {
        return Ok(None);
    }
    let pod: Seen = serde_json::from_value(object).context("read a pod")?;
    let is_gone = kind == "DELETED";
    Ok(Some(if is_gone { Change::Gone(pod.metadata.uid) } else { Change::Is(Box::new(pod)) }))
}

async fn list(api: &Api) -> anyhow::Result<(Vec<Seen>, String)> {
    let (mut all, mut next) = (Vec::new(), String::new());
    loop {
        let mut page = api.get(&format!("{BOUND}&limit={PAGE}&continue={next}")).await?;
        if let Value::Array(items) = page["items"].take() {
            for item in items {
                all.push(serde_json::from_value(item).context("read a pod")?);
            }
        }
        let of = |field: &str| page["metadata"][field].as_str().unwrap_or_default().to_owned();
        next = of("continue");
        if next.is_empty() {
            return Ok((all, of("resourceVersion")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::Shape;
    use super::super::pods::{Life, Meta, Spec, Status};
    use super::super::stub::Stub;
    use super::*;

    fn config() -> Config {
        Config {
            nodes: 2,
            shape: Shape::default(),
            life: Life { start_delay: Duration::from_secs(1), ..Life::default() },
            lease_period: Duration::from_secs(10),
            status_period: Duration::from_secs(300),
        }
    }

    fn pod(uid: &str, node: &str, phase: &str) -> Seen {
        Seen {
            metadata: Meta { uid: uid.into(), ..Meta::default() },
            spec: Spec { node_name: node.into(), ..Spec::default() },
            status: Status { phase: phase.into() },
        }
    }

    fn is(uid: &str, node: &str, phase: &str) -> Change {
        Change::Is(Box::new(pod(uid, node, phase)))
    }

    #[tokio::test]
    async fn an_act_is_done_once_at_its_moment_and_again_where_it_failed() {
        let (config, now) = (config(), Instant::now());
        let second = Duration::from_secs(1);
        let mut timeline = Timeline::default();
        timeline.apply(is("a", "hollow-00001", "Pending"), &config, now);
        timeline.apply(is("other", "real", "Pending"), &config, now);
        assert_eq!(timeline.wake(), Some(now + second));
        assert!(timeline.next(now).is_none());
        // Told again meanwhile: its moment stays.
        timeline.apply(is("a", "hollow-00001", "Pending"), &config, now + second / 2);
        assert_eq!(timeline.next(now + second).map(|(_, act)| act), Some(Act::Run));
        assert!(timeline.next(now + second).is_none());
        timeline.again("a", now + second * 2);
        assert_eq!(timeline.next(now + second * 2).map(|(_, act)| act), Some(Act::Run));
        timeline.apply(is("a", "hollow-00001", "Running"), &config, now + second * 3);
        assert_eq!(timeline.wake(), None, "it runs for good");
    }

    #[tokio::test]
    async fn a_watch_that_ends_at_once_is_begun_again_after_a_pause() {
        let stub = Stub::start(|_, path| {
            let list = r#"{"metadata":{"resourceVersion":"7"},"items":[]}"#;
            if path.contains("watch=true") { String::new() } else { list.to_owned() }
        })
        .await;
        let (sender, _changes) = mpsc::channel(CHANGES);
        let watching = tokio::spawn(follow(Arc::new(stub.api()), sender));
        tokio::time::sleep(RETRY * 3).await;
        watching.abort();
        let watches = stub.asked().iter().filter(|line| line.contains("watch=true")).count();
        assert!((2..=5).contains(&watches), "{watches} watches in {:?}", RETRY * 3);
    }

    #[tokio::test]
    async fn what_is_not_in_a_list_any_more_is_forgotten() {
        let (config, now) = (config(), Instant::now());
        let mut timeline = Timeline::default();
        timeline.apply(is("a", "hollow-00000", "Pending"), &config, now);
        timeline.apply(is("b", "hollow-00000", "Pending"), &config, now);
        timeline.apply(Change::All(vec![pod("b", "hollow-00000", "Pending")]), &config, now);
        timeline.apply(Change::Gone("b".into()), &config, now);
        assert!(timeline.pods.is_empty() && timeline.moments.is_empty());
    }
}
