//! The generic registry: what is the same for every kind of object, over any [`Kv`].
//!
//! An object is one key (`key`), its value the object's JSON without resourceVersion (`stored`).
//! Every write is a compare-and-set on the revision that was read, with what the kind's strategy
//! attaches in the same transaction; so nothing is ever half done (invariants A1, A3).

pub mod key;
pub mod options;
pub mod scheme;
pub mod strategy;

mod apply;
mod attach;
mod binding;
mod create;
mod decoded;
mod definitions;
mod delete;
mod endpoint;
mod evict;
mod metadata;
mod namespaces;
mod page;
mod patching;
pub(crate) mod read;
mod scale;
pub(crate) mod stored;
mod tracking;
mod update;
pub mod watch;

use std::sync::Arc;

use kontiki_storage::kv::Kv;

use crate::admission::Admission;
use crate::outbound::Outbound;
use decoded::Decoded;
use scheme::Scheme;

pub use apply::Apply;
pub use delete::{FOREGROUND, ORPHAN};
pub(crate) use endpoint::port_of;
pub use metadata::seconds;

/// How often a write is tried again when others write the same object at the same time.
const TRIES: usize = 16;

/// Objects of all kinds in the store.
pub struct Registry {
    kv: Arc<dyn Kv>,
    scheme: Arc<Scheme>,
    admission: Admission,
    outbound: Arc<Outbound>,
    decoded: Decoded,
}

impl Registry {
    /// The registry over a store.
    pub fn new(kv: Arc<dyn Kv>, scheme: Arc<Scheme>, admission: Admission) -> Self {
        Self { kv, scheme, admission, outbound: Arc::default(), decoded: Decoded::default() }
    }

    /// Calls webhooks.
    pub(crate) fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// The store.
    pub fn kv(&self) -> &Arc<dyn Kv> {
        &self.kv
    }

    /// What is decided on writes beyond the kinds' own rules.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// The kinds.
    pub fn scheme(&self) -> &Arc<Scheme> {
        &self.scheme
    }
}
