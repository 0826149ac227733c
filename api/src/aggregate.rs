//! [`Aggregation`]: versions of groups that other API servers serve, as APIServices register them.
//!
//! ```text
//!   /apis/GROUP/VERSION/… ──▶ chain (who, may they) ──▶ routes ──▶ forward ──TLS──▶ their server
//!                                                          ▲          who asks, in X-Remote-* headers
//!   APIServices ──▶ informer ──────────────────────────────┘
//!                      └──▶ follow: what they say of themselves ──▶ discovery, OpenAPI
//! ```
//!
//! A version that an APIService leads elsewhere is not served here, even if this server knows it -
//! except for Kubernetes' own: whatever their APIServices say, they are served here, so that nobody
//! who may write APIServices takes the API over, and the way back with it. The other server believes the headers because of the certificate they come with ([`trust`] tells
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
use crate::resources::KINDS;
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
        leads_away(&service).then_some(service)
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
        let asked = services.into_iter().filter(|one| leads_away(one) && is_available(one));
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
        let remote = services.iter().filter(|service| leads_away(service));
        let there: BTreeSet<GroupVersion> = remote.map(|service| group_version(service)).collect();
        self.change(|known| {
            known.priorities = priorities;
            known.remotes.retain(|name, _| there.contains(name));
        });
        for service in services.iter().filter(|one| leads_away(one) && !is_available(one)) {
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

/// Whether another server serves what an APIService is about.
fn leads_away(service: &Object) -> bool {
    let (group, version) = group_version(service);
    is_remote(service) && !is_own(&group, &version)
}

/// Whether a version is one of Kubernetes' own that this server has. What it has beyond them
/// (`metrics.k8s.io`) others may serve in its place.
fn is_own(group: &str, version: &str) -> bool {
    let is_upstreams =
        group == api_service::KIND.group || Priority::built_in(group, version).is_some();
    is_upstreams && KINDS.iter().any(|kind| (kind.group, kind.version) == (group, version))
}

fn group_version(service: &Object) -> GroupVersion {
    (service.str_at("/spec/group").to_owned(), service.str_at("/spec/version").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_own_versions_are_served_here_whatever_their_api_services_say() {
        let service = |group: &str, version: &str| {
            let spec = serde_json::json!({
                "group": group, "version": version,
                "service": { "namespace": "default", "name": "api" },
            });
            Object::new(serde_json::json!({ "spec": spec })).unwrap()
        };
        for (group, version, is_away) in [
            ("", "v1", false),
            ("apps", "v1", false),
            ("apiregistration.k8s.io", "v1", false),
            ("rbac.authorization.k8s.io", "v1", false),
            ("admissionregistration.k8s.io", "v1", false),
            ("metrics.k8s.io", "v1beta1", true),
            ("apps", "v9", true),
            ("wardle.example.com", "v1alpha1", true),
        ] {
            assert_eq!(leads_away(&service(group, version)), is_away, "{group}/{version}");
        }
    }
}
