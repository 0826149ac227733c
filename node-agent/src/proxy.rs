//! Services on this node, by nftables alone.
//!
//! ```text
//!  catalog ──► ports::promise ──► table::fragment ──► Index::apply ──► ruleset::diff ──► nft
//!  (what the API says)     pure, Service by Service        │        (one transaction)
//!                                                          └──► flows (conntrack), health ports
//! ```
//!
//! One table per agent, named after its data directory: two agents on one machine leave each
//! other's alone. It is written whole once both lists are known, and after that only what differs;
//! whatever goes wrong is mended by writing it whole again. It stays when the agent stops, so that
//! Services work on while it restarts, and goes with [`nft::remove_table`] when the node is cleaned up.

use std::collections::{BTreeMap, BTreeSet};

pub mod flows;
pub mod health;
pub mod index;
pub mod nft;
pub mod ports;
pub mod ruleset;
pub mod table;

use flows::Conntrack;
use health::HealthPorts;
use index::{Index, Key};
use nft::{Nft, NftError};
use ports::{Place, Promise};
use table::{ALL_PODS, Fragment, OWN_PODS};

use crate::catalog::Catalog;

/// Applies what the catalog says to the kernel.
pub struct Proxy {
    place: Place,
    index: Index,
    promises: BTreeMap<Key, Promise>,
    nft: Nft,
    conntrack: Conntrack,
    health: HealthPorts,
    /// All that must be known is known: what is in force may be replaced.
    may_write: bool,
    /// What is in force is what the index has.
    is_whole: bool,
}

impl Proxy {
    /// Nothing is written yet. `bridge` is the interface of this node's pods.
    pub fn new(nft: Nft, place: Place, bridge: &str) -> Self {
        Self {
            place,
            index: Index::new(bridge),
            promises: BTreeMap::new(),
            nft,
            conntrack: Conntrack::find(),
            health: HealthPorts::default(),
            may_write: false,
            is_whole: false,
        }
    }

    /// From now on changes are written: before, they are only noted, and what an earlier run of the
    /// agent wrote stays in force.
    pub fn begin(&mut self) {
        self.may_write = true;
    }

    /// Brings these Services up to date.
    pub async fn sync(&mut self, catalog: &parking_lot::RwLock<Catalog>, keys: &BTreeSet<Key>) {
        let mut stale = BTreeSet::new();
        let mut changes = Vec::new();
        for key in keys {
            let new = self.promise(&catalog.read(), key);
            let old = self.promises.remove(key).unwrap_or_default();
            stale.extend(flows::stale(&old, &new));
            self.health.apply(key, new.health);
            changes.push((key.clone(), table::fragment(&new)));
            if new != Promise::default() {
                self.promises.insert(key.clone(), new);
            }
        }
        self.write(changes).await;
        self.conntrack.forget(&stale).await;
    }

    /// Tells apart this node's pods, all nodes' pods, and everybody else.
    pub async fn set_ranges(&mut self, own: Option<&str>, all: &BTreeSet<String>) {
        let mut fragment = Fragment::default();
        for (set, ranges) in
            [(OWN_PODS, own.map(str::to_owned).into_iter().collect()), (ALL_PODS, all.clone())]
        {
            for range in ranges.iter().filter_map(|range| ports::ipv4_range(range)) {
                fragment.elements.insert((set, range), String::new());
            }
        }
        // No Service is called that.
        self.write(vec![((String::new(), "pod ranges".to_owned()), fragment)]).await;
    }

    /// Looks whether the table is still there, and writes it again where it is not.
    pub async fn check(&mut self) {
        match self.nft.is_there().await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(table = self.nft.table(), "the table is gone: write it again");
                self.is_whole = false;
            }
            Err(error) => tracing::warn!(error = crate::api::chain(&error), "look at the table"),
        }
        if !self.is_whole {
            self.write(Vec::new()).await;
        }
    }

    fn promise(&self, catalog: &Catalog, key: &Key) -> Promise {
        let Some(service) = catalog.service(key) else { return Promise::default() };
        ports::promise(service, &catalog.slices(key), &self.place)
    }

    async fn write(&mut self, changes: Vec<(Key, Fragment)>) {
        let commands = self.index.apply(changes);
        if !self.may_write {
            return;
        }
        if self.is_whole {
            if commands.is_empty() {
                return;
            }
            match self.nft.run(&ruleset::render(self.nft.table(), &commands)).await {
                Ok(()) => return,
                Err(error) => self.failed(&error, "write the table again from the start"),
            }
        }
        let whole = ruleset::replace(self.nft.table(), &self.index.ruleset());
        match self.nft.run(&whole).await {
            Ok(()) => self.is_whole = true,
            Err(error) => self.failed(&error, "Services do not work on this node"),
        }
    }

    fn failed(&mut self, error: &NftError, what: &str) {
        self.is_whole = false;
        let error = crate::api::chain(error);
        tracing::error!(table = self.nft.table(), error, "{what}");
    }
}
