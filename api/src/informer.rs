//! [`Informers`]: the objects of a kind in memory, kept current by a watch, decoded once and shared
//! by everybody in this process who reads them.
//!
//! Objects are without their `managedFields`, as in upstream's controllers: a write that says none
//! leaves them as they are.
//!
//! A subscriber never blocks the others: one that falls behind is told [`Change::Resync`] and reads
//! the whole state anew.

mod partial;
mod reflector;

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kontiki_storage::kv::Kv;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::ApiType;
use crate::object::Object;
use crate::registry::scheme::Scheme;
use crate::registry::strategy::Kind;
use crate::spliced;

pub use partial::PartialObject;

/// How many changes a subscriber may lag behind before it is told to resync.
pub const SUBSCRIBER_QUEUE: usize = 1024;
/// How often the store is asked for its progress while somebody waits for a revision.
const PROGRESS_RETRY: Duration = Duration::from_millis(20);

/// What happened to the objects of an informer.
#[derive(Debug, Clone)]
pub enum Change<T> {
    /// An object is there that was not.
    Added(Arc<T>),
    /// An object changed.
    Updated {
        /// As it was.
        old: Arc<T>,
        /// As it is.
        new: Arc<T>,
    },
    /// An object is gone; this is its last state.
    Deleted(Arc<T>),
    /// Changes were left out: look at everything anew with [`Informer::list`].
    Resync,
}

/// Namespace and name.
type Name = (String, String);

/// Turns a stored object, at its revision, into that of the informer.
type Decode<T> = fn(&[u8], u64) -> Result<T, String>;

struct Cached<T> {
    object: Arc<T>,
    revision: u64,
}

/// Says under which keys of an index an object is found.
type Keys<T> = fn(&T) -> Vec<String>;

/// Objects by something else than their name.
struct Index<T> {
    keys: Keys<T>,
    entries: HashMap<String, BTreeMap<Name, Arc<T>>>,
}

impl<T> Index<T> {
    fn insert(&mut self, name: &Name, object: &Arc<T>) {
        for key in (self.keys)(object) {
            self.entries.entry(key).or_default().insert(name.clone(), Arc::clone(object));
        }
    }

    fn remove(&mut self, name: &Name, object: &T) {
        for key in (self.keys)(object) {
            if let Some(found) = self.entries.get_mut(&key) {
                found.remove(name);
                if found.is_empty() {
                    self.entries.remove(&key);
                }
            }
        }
    }
}

/// The objects with their indices, which always agree.
struct State<T> {
    objects: BTreeMap<Name, Cached<T>>,
    indices: HashMap<&'static str, Index<T>>,
}

impl<T> State<T> {
    fn insert(&mut self, name: Name, object: Arc<T>, revision: u64) -> Option<Cached<T>> {
        let old = self.objects.get(&name);
        if old.is_some_and(|old| old.revision == revision) {
            return self.objects.insert(name, Cached { object, revision });
        }
        for index in self.indices.values_mut() {
            if let Some(old) = old {
                index.remove(&name, &old.object);
            }
            index.insert(&name, &object);
        }
        self.objects.insert(name, Cached { object, revision })
    }

    fn remove(&mut self, name: &Name) -> Option<Cached<T>> {
        let gone = self.objects.remove(name)?;
        for index in self.indices.values_mut() {
            index.remove(name, &gone.object);
        }
        Some(gone)
    }
}

struct Subscriber<T> {
    queue: mpsc::Sender<Change<T>>,
    /// It was told to resync; until it has made room, changes are left out.
    lagging: bool,
}

/// The objects of one kind.
pub struct Informer<T> {
    kind: &'static Kind,
    state: RwLock<State<T>>,
    subscribers: Mutex<Vec<Subscriber<T>>>,
    synced: watch::Sender<bool>,
    /// Up to which revision every change is in.
    revision: watch::Sender<u64>,
    /// Somebody waits for a revision that no change may ever bring: ask the store how far it is.
    progress_wanted: Notify,
}

impl<T: Send + Sync + 'static> Informer<T> {
    fn new(kind: &'static Kind) -> Self {
        Self {
            kind,
            state: RwLock::new(State { objects: BTreeMap::new(), indices: HashMap::new() }),
            subscribers: Mutex::default(),
            synced: watch::Sender::new(false),
            revision: watch::Sender::new(0),
            progress_wanted: Notify::new(),
        }
    }

    /// The kind of its objects.
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// Waits until the first full list is in. Callers bound the wait.
    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        drop(synced.wait_for(|synced| *synced).await);
    }

    /// Whether the first full list is in.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Up to which revision every change of the kind is in.
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Waits until every change up to `revision` is in: who has just written something and reads
    /// here next, or takes over from another server, waits for that. Callers bound the wait.
    pub async fn reached(&self, revision: u64) {
        let mut reached = self.revision.subscribe();
        while *reached.borrow_and_update() < revision {
            self.progress_wanted.notify_one();
            // The sender lives as long as `self`; asked again in case the store was behind itself.
            drop(tokio::time::timeout(PROGRESS_RETRY, reached.changed()).await);
        }
    }

    fn advance(&self, revision: u64) {
        self.revision.send_replace(revision);
    }

    /// One object; `namespace` is empty for what has none.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.state.read().objects.get(&key).map(|cached| Arc::clone(&cached.object))
    }

    /// All objects, in the order of namespace and name.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.state.read().objects.values().map(|cached| Arc::clone(&cached.object)).collect()
    }

    /// The objects of one namespace.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<T>> {
        let from = (namespace.to_owned(), String::new());
        self.state
            .read()
            .objects
            .range(from..)
            .take_while(|((own, _), _)| own == namespace)
            .map(|(_, cached)| Arc::clone(&cached.object))
            .collect()
    }

    /// Keeps the objects also by these keys, for [`Informer::indexed`]. Doing so again under the
    /// same name changes nothing.
    pub fn index_by(&self, name: &'static str, keys: fn(&T) -> Vec<String>) {
        let mut state = self.state.write();
        if state.indices.contains_key(name) {
            return;
        }
        let mut index = Index { keys, entries: HashMap::new() };
        for (name, cached) in &state.objects {
            index.insert(name, &cached.object);
        }
        state.indices.insert(name, index);
    }

    /// The objects under a key of an index, in the order of namespace and name.
    pub fn indexed(&self, name: &'static str, key: &str) -> Vec<Arc<T>> {
        let state = self.state.read();
        let found = state.indices.get(name).and_then(|index| index.entries.get(key));
        found.into_iter().flat_map(BTreeMap::values).map(Arc::clone).collect()
    }

    /// Whether any object is under a key of an index.
    pub fn is_indexed(&self, name: &'static str, key: &str) -> bool {
        let state = self.state.read();
        state.indices.get(name).is_some_and(|index| index.entries.contains_key(key))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The changes from now on. What is there already is not sent: subscribe first, then
    /// [`Informer::list`]. Cancel-safe to receive from.
    pub fn subscribe(&self) -> mpsc::Receiver<Change<T>> {
        let (queue, changes) = mpsc::channel(SUBSCRIBER_QUEUE);
        self.subscribers.lock().push(Subscriber { queue, lagging: false });
        changes
    }

    fn apply(&self, name: Name, revision: u64, object: T) {
        let new = Arc::new(object);
        let change = {
            match self.state.write().insert(name, Arc::clone(&new), revision) {
                None => Change::Added(new),
                Some(old) if old.revision == revision => return,
                Some(old) => Change::Updated { old: old.object, new },
            }
        };
        self.publish(&change);
    }

    fn delete(&self, name: &Name) {
        let gone = self.state.write().remove(name);
        if let Some(gone) = gone {
            self.publish(&Change::Deleted(gone.object));
        }
    }

    /// Takes a full list: what is not in it is gone.
    fn reset(&self, list: Vec<(Name, u64, T)>) {
        let present: std::collections::BTreeSet<&Name> =
            list.iter().map(|(name, _, _)| name).collect();
        let gone: Vec<Name> = {
            let state = self.state.read();
            state.objects.keys().filter(|name| !present.contains(name)).cloned().collect()
        };
        for name in gone {
            self.delete(&name);
        }
        for (name, revision, object) in list {
            self.apply(name, revision, object);
        }
        self.synced.send_replace(true);
    }

    /// Hands a change to all. The last place of each queue is kept for `Resync`.
    fn publish(&self, change: &Change<T>) {
        self.subscribers.lock().retain_mut(|subscriber| {
            if subscriber.queue.is_closed() {
                return false;
            }
            let room = subscriber.queue.capacity();
            subscriber.lagging &= room <= 1;
            if room > 1 {
                drop(subscriber.queue.try_send(change.copy()));
            } else if !subscriber.lagging {
                drop(subscriber.queue.try_send(Change::Resync));
                subscriber.lagging = true;
            }
            true
        });
    }
}

impl<T> Change<T> {
    /// A copy that shares the objects.
    fn copy(&self) -> Self {
        match self {
            Self::Added(object) => Self::Added(Arc::clone(object)),
            Self::Updated { old, new } => {
                Self::Updated { old: Arc::clone(old), new: Arc::clone(new) }
            }
            Self::Deleted(object) => Self::Deleted(Arc::clone(object)),
            Self::Resync => Self::Resync,
        }
    }
}

/// An `Informer<T>` whose `T` is told by its key.
type AnyInformer = Arc<dyn Any + Send + Sync>;

/// The type of the objects, and their kind in the store.
type Which = (TypeId, &'static str);

/// An informer, whatever its objects are.
#[async_trait]
trait Follows: Send + Sync {
    async fn caught_up(&self, revision: u64);
}

#[async_trait]
impl<T: Send + Sync + 'static> Follows for Informer<T> {
    async fn caught_up(&self, revision: u64) {
        self.synced().await;
        self.reached(revision).await;
    }
}

/// One informer per kind and type, started when it is first asked for.
///
/// Who asks through a view of its own ([`Informers::view`]) can wait until all that it asked for has
/// caught up.
pub struct Informers {
    all: Arc<All>,
    asked_for: Mutex<HashMap<Which, Arc<dyn Follows>>>,
}

/// What all views have in common.
struct All {
    kv: Arc<dyn Kv>,
    scheme: Arc<Scheme>,
    running: Mutex<HashMap<Which, AnyInformer>>,
    /// Where all of them run, whoever asks for one first.
    runtime: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Informers {
    /// None yet. They run in the runtime within which this is called.
    pub(crate) fn new(kv: Arc<dyn Kv>, scheme: Arc<Scheme>) -> Self {
        let all = All {
            kv,
            scheme,
            running: Mutex::default(),
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Self { all: Arc::new(all), asked_for: Mutex::default() }
    }

    /// The same informers for somebody else, of whom nothing is known yet.
    pub fn view(&self) -> Arc<Self> {
        Arc::new(Self { all: Arc::clone(&self.all), asked_for: Mutex::default() })
    }

    /// Waits until every informer that was asked for through this view has every change up to
    /// `revision`: who decides on a list that is not in yet takes objects for gone that are there.
    /// Callers bound the wait.
    pub async fn caught_up(&self, revision: u64) {
        let asked_for: Vec<_> = self.asked_for.lock().values().cloned().collect();
        for informer in asked_for {
            informer.caught_up(revision).await;
        }
    }

    /// The informer of a type.
    ///
    /// # Panics
    /// When the server does not know the type's kind: the list in `resources` decides that.
    pub fn of<K: ApiType>(&self) -> Arc<Informer<K>> {
        let kind = self
            .all
            .scheme
            .kind(K::GROUP, K::VERSION, K::KIND)
            .expect("a type with an informer must be among the served kinds");
        self.start(kind, typed)
    }

    /// The informer of a kind, with its objects as JSON.
    pub fn objects(&self, kind: &'static Kind) -> Arc<Informer<Object>> {
        self.start(kind, whole)
    }

    /// The informer of a kind of whose objects only identity and ties are kept.
    pub fn partial(&self, kind: &'static Kind) -> Arc<Informer<PartialObject>> {
        self.start(kind, PartialObject::from_stored)
    }

    /// Runs a task that lives as long as the informers; it must end when its token is cancelled.
    pub(crate) fn attend<F>(&self, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.all.tasks.spawn_on(task(self.all.stop.clone()), &self.all.runtime);
    }

    /// Ends all informers and waits until they have.
    pub async fn shutdown(&self) {
        self.all.stop.cancel();
        self.all.tasks.close();
        self.all.tasks.wait().await;
    }

    fn start<T: Send + Sync + 'static>(
        &self,
        kind: &'static Kind,
        decode: Decode<T>,
    ) -> Arc<Informer<T>> {
        let which = (TypeId::of::<T>(), kind.storage);
        let informer = self.all.start(which, kind, decode);
        self.asked_for.lock().entry(which).or_insert_with(|| Arc::clone(&informer) as _);
        informer
    }
}

impl All {
    fn start<T: Send + Sync + 'static>(
        &self,
        which: Which,
        kind: &'static Kind,
        decode: Decode<T>,
    ) -> Arc<Informer<T>> {
        let mut running = self.running.lock();
        let entry = running.entry(which).or_insert_with(|| {
            let informer = Arc::new(Informer::<T>::new(kind));
            let (kv, stop) = (Arc::clone(&self.kv), self.stop.clone());
            let follow = reflector::run(kv, Arc::clone(&informer), decode, stop);
            self.tasks.spawn_on(follow, &self.runtime);
            informer
        });
        Arc::clone(entry).downcast().expect("an informer must have the type under which it is kept")
    }
}

fn typed<K: ApiType>(bytes: &[u8], revision: u64) -> Result<K, String> {
    let mut object: K =
        serde_json::from_slice(&spliced::trimmed(bytes)).map_err(|error| error.to_string())?;
    object.metadata_mut().resource_version = Some(revision.to_string());
    Ok(object)
}

fn whole(bytes: &[u8], revision: u64) -> Result<Object, String> {
    let mut object =
        Object::from_stored(&spliced::trimmed(bytes)).map_err(|error| error.to_string())?;
    object.set_meta("resourceVersion", revision.to_string());
    Ok(object)
}
