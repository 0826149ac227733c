//! Static pods among the pods of a node: they come from files instead of the API, which only shows
//! them.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::Pods;
use crate::api::uid;
use crate::mirrors::{Key, Mirror, View, key};
use crate::static_pods::is_static;

impl Pods {
    /// Takes in all static pods there are now.
    pub(super) fn set_statics(&mut self, pods: Vec<Pod>, shutdown: &CancellationToken) {
        let present: HashSet<String> = pods.iter().map(|pod| uid(pod).to_owned()).collect();
        for (uid, handle) in &self.handles {
            if is_static(&handle.desired.borrow().pod) && !present.contains(uid) {
                handle.desired.send_modify(|desired| desired.gone = true);
            }
        }
        self.waiting = pods.into_iter().map(|pod| (uid(&pod).to_owned(), pod)).collect();
        self.files_read = true;
        self.begin_waiting(shutdown);
    }

    /// Begins the static pods whose name is free: what a file said before must have ended first.
    pub(super) fn begin_waiting(&mut self, shutdown: &CancellationToken) {
        let taken: HashSet<Key> = self.statics().map(|pod| key(&pod)).collect();
        let waiting = std::mem::take(&mut self.waiting);
        for (uid, pod) in waiting {
            let known = self.handles.get(&uid).map(|handle| handle.desired.borrow().gone);
            match known {
                // It runs, and goes on.
                Some(false) => {}
                None if !taken.contains(&key(&pod)) => self.apply(pod, shutdown),
                // What was taken away and is there again begins anew.
                _ => drop(self.waiting.insert(uid, pod)),
            }
        }
        self.show();
    }

    /// Takes in what the API says of a mirror pod.
    pub(super) fn set_mirror(&mut self, key: Key, mirror: Option<Mirror>) {
        match mirror {
            Some(mirror) => drop(self.mirrors.insert(key, mirror)),
            None => drop(self.mirrors.remove(&key)),
        }
        self.show();
    }

    /// Tells workers of static pods which pod of the API shows theirs, and whoever keeps those pods
    /// what there is.
    pub(super) fn show(&self) {
        for handle in self.handles.values() {
            handle.desired.send_if_modified(|desired| {
                if !is_static(&desired.pod) {
                    return false;
                }
                let mirror = self.mirrors.get(&key(&desired.pod));
                let mirror = mirror.filter(|mirror| mirror.shows(&desired.pod));
                let mirror = mirror.map(|mirror| mirror.uid.clone());
                let is_new = desired.mirror != mirror;
                desired.mirror = mirror;
                is_new
            });
        }
        let waiting = self.waiting.values().map(|pod| (key(pod), Arc::new(pod.clone())));
        // What ends is shown until it has.
        let running = self.statics().map(|pod| (key(&pod), pod));
        let view = View {
            pods: waiting.chain(running).collect(),
            mirrors: self.mirrors.clone(),
            is_whole: self.heard && self.files_read,
        };
        self.view.send_if_modified(|known| {
            let is_new = *known != view;
            *known = view;
            is_new
        });
    }

    /// The static pods that have workers.
    fn statics(&self) -> impl Iterator<Item = Arc<Pod>> {
        let pods = self.handles.values().map(|handle| handle.desired.borrow().pod.clone());
        pods.filter(|pod| is_static(pod))
    }
}
