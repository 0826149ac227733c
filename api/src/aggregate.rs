//! [`Aggregation`]: versions of groups that other API servers serve, as APIServices register them.
//!
//! ```text
//!   /apis/GROUP/VERSION/… ──▶ chain (who, may they) ──▶ routes ──▶ forward ──TLS──▶ their server
//!                                                          ▲          who asks, in X-Remote-* headers
//!   APIServices ──▶ informer ──────────────────────────────┘
//!                      └──▶ follow: what they say of themselves ──▶ discovery, OpenAPI
//! ```
//!
//! A version that an APIService leads elsewhere is not served here, even if this server knows it. The
//! other server believes the headers because of the certificate they come with ([`trust`] tells
//! it which); whether it answers is looked at by a controller of the leader, by [`check()`].

mod check;
pub(crate) mod forward;
mod identity;
pub(crate) mod remote;
pub(crate) mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use reqwest::{Client, Url};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use check::check;

use crate::discovery::priority::Priority;
use crate::informer::{Informer, Informers};
use crate::object::Object;
use crate::outbound::{Credentials, Outbound, Target};
use crate::registry::Registry;
use crate::resources::api_service::{self, is_available, is_remote};
use remote::Remote;

/// How often the others are asked what they serve, as upstream has it.
const PERIOD: Duration = Duration::from_mins(1);
/// How many are asked at once.
const AT_ONCE: usize = 16;

/// Group and version.
pub(crate) type GroupVersion = (String, String);

/// What the APIServices say, and those that they name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// How much each version is to be preferred.
    pub(crate) priorities: BTreeMap<GroupVersion, Priority>,
    /// The versions that others serve.
    pub(crate) remotes: BTreeMap<GroupVersion, Arc<Remote>>,
    /// Grows with every change.
    pub(crate) generation: u64,
}

/// The versions that other API servers serve.
pub(crate) struct Aggregation {
    services: Arc<Informer<Object>>,
    outbound: Outbound,
    known: RwLock<Arc<Known>>,
}

impl Aggregation {
    /// What is registered in the store; the others are shown `own`.
    pub(crate) fn new(informers: &Informers, own: Option<Credentials>) -> Self {
        Self {
            services: informers.objects(&api_service::KIND),
            outbound: Outbound::with(own),
            known: RwLock::default(),
        }
    }

    /// The APIService of a path that another server serves.
    pub(crate) fn remote(&self, path: &str) -> Option<Arc<Object>> {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let (root, group, version) = (segments.next()?, segments.next()?, segments.next()?);
        if root != "apis" {
            return None;
        }
        let service = self.services.get("", &format!("{version}.{group}"))?;
        is_remote(&service).then_some(service)
    }

    /// What is known of them all.
    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read())
    }

    /// The root of what the server of an APIService serves, and who calls it.
    async fn reach(&self, registry: &Registry, service: &Object) -> Result<(Client, Url), String> {
        let target = Target::of(service.at("/spec").unwrap_or(&Value::Null));
        self.outbound.reach(registry, &target).await
    }

    /// Asks the others what they serve whenever an APIService changes, and from time to time.
    pub(crate) async fn follow(self: Arc<Self>, registry: Arc<Registry>, stop: CancellationToken) {
        // Subscribed first: what changes after the list is read is told.
        let mut changes = self.services.subscribe();
        if stop.run_until_cancelled(self.services.synced()).await.is_none() {
            return;
        }
        loop {
            // Several changes that came together are one look at all.
            while changes.try_recv().is_ok() {}
            if stop.run_until_cancelled(self.look(&registry)).await.is_none() {
                return;
            }
            let change = tokio::time::timeout(PERIOD, changes.recv());
            match stop.run_until_cancelled(change).await {
                Some(Ok(Some(_)) | Err(_)) => {}
                _ => return,
            }
        }
    }

    async fn look(self: &Arc<Self>, registry: &Arc<Registry>) {
        let services = self.services.list();
        self.register(&services);
        let asked = services.into_iter().filter(|one| is_remote(one) && is_available(one));
        let asked: Vec<Arc<Object>> = asked.collect();
        for some in asked.chunks(AT_ONCE) {
            // Who has answered is known at once, whatever the others do.
            let mut asking = JoinSet::new();
            for service in some {
                let (own, registry) = (Arc::clone(self), Arc::clone(registry));
                let service = Arc::clone(service);
                asking.spawn(async move { own.describe(&registry, &service).await });
            }
            while asking.join_next().await.is_some() {}
        }
    }

    async fn describe(&self, registry: &Registry, service: &Object) {
        match remote::ask(self, registry, service).await {
            Ok(remote) => self.put(remote),
            Err(why) => {
                tracing::info!(api_service = service.name(), why, "not described");
                self.outdated(service);
            }
        }
    }

    /// Takes what is registered; of who is new or not available, what is known is not fresh.
    fn register(&self, services: &[Arc<Object>]) {
        let priorities =
            services.iter().map(|service| (group_version(service), Priority::of(service)));
        let priorities: BTreeMap<_, _> = priorities.collect();
        let remote = services.iter().filter(|service| is_remote(service));
        let there: BTreeSet<GroupVersion> = remote.map(|service| group_version(service)).collect();
        self.change(|known| {
            known.priorities = priorities;
            known.remotes.retain(|name, _| there.contains(name));
        });
        for service in services.iter().filter(|one| is_remote(one) && !is_available(one)) {
            self.outdated(service);
        }
    }

    fn outdated(&self, service: &Object) {
        let name = group_version(service);
        let last = self.known().remotes.get(&name).cloned();
        let last = last.unwrap_or_else(|| Arc::new(Remote::unknown(&name)));
        self.put(Remote { is_fresh: false, ..(*last).clone() });
    }

    fn put(&self, remote: Remote) {
        let name = (remote.group.clone(), remote.version.clone());
        self.change(|known| {
            if known.remotes.get(&name).is_none_or(|last| **last != remote) {
                known.remotes.insert(name, Arc::new(remote));
            }
        });
    }

    /// Changes what is known; the generation grows if that made a difference.
    fn change(&self, act: impl FnOnce(&mut Known)) {
        let mut known = self.known.write();
        let mut next = (**known).clone();
        act(&mut next);
        let is_same = |left: &Arc<Remote>, right: &Arc<Remote>| Arc::ptr_eq(left, right);
        let same_remotes = next.remotes.len() == known.remotes.len()
            && next.remotes.iter().all(|(name, remote)| {
                known.remotes.get(name).is_some_and(|last| is_same(last, remote))
            });
        if !same_remotes || next.priorities != known.priorities {
            next.generation += 1;
            *known = Arc::new(next);
        }
    }
}

fn group_version(service: &Object) -> GroupVersion {
    (service.str_at("/spec/group").to_owned(), service.str_at("/spec/version").to_owned())
}
