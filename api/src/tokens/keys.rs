//! [`KeyRing`]: the keys that sign tokens, shared by all servers through the store.
//!
//! ```text
//! /kontiki/service-account-keys
//!   { "format": 1, "keys": [ { "id", "created" (s), "pkcs8" (base64; sealed where a secret is given) } ] }
//! ```
//!
//! The newest key signs, all verify. A new one is added by compare-and-set; an old one goes when
//! nothing that it signed can be good any more. A server that meets a key it does not know reads
//! the ring anew, so a rotation needs no restart and no message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{DecodingKey, EncodingKey};
use kontiki_storage::kv::{Compare, KeyRange, Kv, Op, RangeRequest, Revision, Txn};
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::SECONDS_MAX;
use super::seal::Sealer;
use crate::status::Status;

const KEY: &str = "/kontiki/service-account-keys";
const FORMAT: u32 = 1;
/// How old the signing key becomes before the leader adds the next one.
const ROTATE_AFTER_SECONDS: i64 = 90 * 24 * 3600;
/// How long a server signs with a ring that it has not looked at again.
const FRESH: Duration = Duration::from_secs(30);
/// How often an unknown key makes a server read the ring: tokens of strangers must not make it busy.
const UNKNOWN_EVERY: Duration = Duration::from_millis(200);
/// How often servers that add a key at the same time get in each other's way before one gives up.
const TRIES: usize = 8;

/// One key.
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) created: i64,
    pub(crate) encoding: EncodingKey,
    pub(crate) decoding: DecodingKey,
    pkcs8: Vec<u8>,
    /// The point, uncompressed: 4, x, y.
    public: Vec<u8>,
}

/// The ring as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    id: String,
    created: i64,
    pkcs8: String,
}

struct Cached {
    keys: Vec<Arc<Key>>,
    read: Instant,
}

/// The keys of the cluster.
pub(crate) struct KeyRing {
    kv: Arc<dyn Kv>,
    sealer: Option<Sealer>,
    cached: Mutex<Option<Cached>>,
    /// One at a time looks for an unknown key; the others see what it found.
    looking: tokio::sync::Mutex<()>,
}

impl KeyRing {
    pub(super) fn new(kv: Arc<dyn Kv>, sealer: Option<Sealer>) -> Self {
        Self { kv, sealer, cached: Mutex::new(None), looking: tokio::sync::Mutex::default() }
    }

    /// The key to sign with; the first one is made where there is none.
    pub(super) async fn signing(&self) -> Result<Arc<Key>, Status> {
        if let Some(key) = self.cached(FRESH).and_then(|keys| keys.last().cloned()) {
            return Ok(key);
        }
        let (keys, _) = self.read().await?;
        match keys.last() {
            Some(key) => Ok(Arc::clone(key)),
            None => self.add(<[Arc<Key>]>::is_empty).await,
        }
    }

    /// The key of that name, if it is one of the cluster's.
    pub(super) async fn verifying(&self, id: &str) -> Option<Arc<Key>> {
        let find = |keys: &[Arc<Key>]| keys.iter().find(|key| key.id == id).cloned();
        if let Some(found) = self.cached(Duration::MAX).and_then(|keys| find(&keys)) {
            return Some(found);
        }
        let asked = Instant::now();
        let _one = self.looking.lock().await;
        if self.read_at().is_none_or(|read| read < asked) {
            if let Some(read) = self.read_at() {
                tokio::time::sleep(UNKNOWN_EVERY.saturating_sub(read.elapsed())).await;
            }
            self.read().await.ok()?;
        }
        self.cached(Duration::MAX).and_then(|keys| find(&keys))
    }

    /// When the ring that is known was asked for.
    fn read_at(&self) -> Option<Instant> {
        self.cached.lock().as_ref().map(|cached| cached.read)
    }

    /// All keys, the newest last.
    pub(crate) async fn all(&self) -> Result<Vec<Arc<Key>>, Status> {
        match self.cached(FRESH) {
            Some(keys) => Ok(keys),
            None => self.read().await.map(|(keys, _)| keys),
        }
    }

    /// Adds a key that signs from now on.
    pub(crate) async fn rotate(&self) -> Result<Arc<Key>, Status> {
        self.add(|_| true).await
    }

    /// Adds a key where there is none, or the newest has served its time. The leader calls it.
    pub(crate) async fn maintain(&self) -> Result<(), Status> {
        let now = Timestamp::now().as_second();
        let is_due = |keys: &[Arc<Key>]| {
            keys.last().is_none_or(|key| key.created + ROTATE_AFTER_SECONDS < now)
        };
        self.add(is_due).await.map(drop)
    }

    /// The keys as `/openid/v1/jwks` shows them.
    pub(crate) async fn jwks(&self) -> Result<Value, Status> {
        let keys = self.all().await?;
        let shown = keys.iter().map(|key| {
            let (x, y) = key.public[1..].split_at(32);
            json!({
                "use": "sig", "kty": "EC", "kid": key.id, "crv": "P-256", "alg": "ES256",
                "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
            })
        });
        Ok(json!({ "keys": shown.collect::<Vec<_>>() }))
    }

    fn cached(&self, age: Duration) -> Option<Vec<Arc<Key>>> {
        let cached = self.cached.lock();
        cached.as_ref().filter(|cached| cached.read.elapsed() < age).map(|c| c.keys.clone())
    }

    /// The ring as it is now, and since which revision.
    async fn read(&self) -> Result<(Vec<Arc<Key>>, Revision), Status> {
        let asked = Instant::now();
        let response = self.kv.range(RangeRequest::new(KeyRange::key(KEY.to_owned()))).await?;
        let (keys, revision) = match response.kvs.first() {
            None => (Vec::new(), Revision::ZERO),
            Some(found) => (self.decode(&found.value)?, found.mod_revision),
        };
        *self.cached.lock() = Some(Cached { keys: keys.clone(), read: asked });
        Ok((keys, revision))
    }

    /// Adds a key if the ring, as it is then, `wants` one; gives the one that signs.
    async fn add(&self, wants: impl Fn(&[Arc<Key>]) -> bool) -> Result<Arc<Key>, Status> {
        for _ in 0..TRIES {
            let (mut keys, revision) = self.read().await?;
            if let Some(key) = keys.last().filter(|_| !wants(&keys)) {
                return Ok(Arc::clone(key));
            }
            let now = Timestamp::now().as_second();
            let superseded = keys.iter().skip(1).map(|next| next.created);
            let gone = superseded.take_while(|since| since + SECONDS_MAX < now).count();
            keys.drain(..gone);
            let key = Arc::new(generate(now)?);
            keys.push(Arc::clone(&key));
            let txn = Txn {
                compare: vec![Compare::unchanged_since(KEY, revision)],
                success: vec![Op::put(KEY, self.encode(&keys)?)],
                failure: vec![],
            };
            if self.kv.txn(txn.into()).await?.succeeded {
                *self.cached.lock() = Some(Cached { keys, read: Instant::now() });
                return Ok(key);
            }
        }
        Err(Status::unavailable("the keys of service accounts are being changed; try again"))
    }

    fn encode(&self, keys: &[Arc<Key>]) -> Result<Vec<u8>, Status> {
        let stored = |key: &Arc<Key>| {
            let pkcs8 = match &self.sealer {
                Some(sealer) => sealer.seal(&key.id, &key.pkcs8).map_err(Status::internal)?,
                None => key.pkcs8.clone(),
            };
            let (id, created) = (key.id.clone(), key.created);
            Ok(StoredKey { id, created, pkcs8: BASE64.encode(pkcs8) })
        };
        let keys = keys.iter().map(stored).collect::<Result<_, Status>>()?;
        serde_json::to_vec(&Stored { format: FORMAT, keys }).map_err(Status::internal)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<Arc<Key>>, Status> {
        let unreadable =
            |why: &dyn std::fmt::Display| Status::internal(format!("{KEY} cannot be read: {why}"));
        let stored: Stored = serde_json::from_slice(bytes).map_err(|error| unreadable(&error))?;
        if stored.format != FORMAT {
            return Err(unreadable(&format!("it has format {}", stored.format)));
        }
        let key = |stored: StoredKey| {
            let bytes = BASE64.decode(&stored.pkcs8).map_err(|error| unreadable(&error))?;
            let pkcs8 = match &self.sealer {
                Some(sealer) => {
                    sealer.open(&stored.id, &bytes).map_err(|error| unreadable(&error))?
                }
                None => bytes,
            };
            Key::of(pkcs8, stored.created).map(Arc::new)
        };
        stored.keys.into_iter().map(key).collect()
    }
}

impl Key {
    /// Of a private key in PKCS#8; its name is the hash of the public one.
    fn of(pkcs8: Vec<u8>, created: i64) -> Result<Self, Status> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random)
            .map_err(|error| Status::internal(format!("a key of service accounts: {error}")))?;
        let public = pair.public_key().as_ref().to_vec();
        Ok(Self {
            id: URL_SAFE_NO_PAD.encode(Sha256::digest(&public)),
            created,
            encoding: EncodingKey::from_ec_der(&pkcs8),
            decoding: DecodingKey::from_ec_der(&public),
            pkcs8,
            public,
        })
    }
}

fn generate(created: i64) -> Result<Key, Status> {
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    let made = made.map_err(|_| Status::internal("the system gives no random numbers"))?;
    Key::of(made.as_ref().to_vec(), created)
}
