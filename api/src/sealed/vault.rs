//! [`Vault`]: the keys, which one seals now, and which folders are sealed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kontiki_storage::kv::{
    Consistency, Event, KeyRange, KeyValue, Kv, KvError, Op, RangeRequest, Txn,
};
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::tokens::seal::Sealer;

/// What sealed values begin with, before the key's ID and a colon.
const PREFIX: &[u8] = b"k8s:enc:kontiki:v1:";
/// Where it stands which key seals now.
const CURRENT: &str = "/kontiki/encryption-key";
const FORMAT: u64 = 1;
/// The first key, of clusters that have never rotated.
const FIRST: &str = "1";
/// How long a server seals by a key without asking whether it is still the one.
pub(super) const FRESH: Duration = Duration::from_secs(10);

pub(super) struct Vault {
    kv: Arc<dyn Kv>,
    secret: Vec<u8>,
    folders: Vec<String>,
    sealers: RwLock<HashMap<String, Arc<Sealer>>>,
    current: Mutex<Option<(String, Instant)>>,
}

impl Vault {
    pub(super) fn new(kv: Arc<dyn Kv>, secret: &[u8], folders: Vec<String>) -> Self {
        let (sealers, current) = (RwLock::default(), Mutex::default());
        Self { kv, secret: secret.to_vec(), folders, sealers, current }
    }

    pub(super) fn folders(&self) -> &[String] {
        &self.folders
    }

    /// Whether a key lies in a sealed folder.
    pub(super) fn holds(&self, key: &[u8]) -> bool {
        self.folders.iter().any(|folder| key.starts_with(folder.as_bytes()))
    }

    /// The ID of the key that seals now.
    pub(super) async fn current(&self) -> Result<String, KvError> {
        let fresh = |(_, asked): &&(String, Instant)| asked.elapsed() < FRESH;
        if let Some((id, _)) = self.current.lock().as_ref().filter(fresh) {
            return Ok(id.clone());
        }
        let asked = Instant::now();
        let key = KeyRange::key(CURRENT);
        let request =
            RangeRequest { consistency: Consistency::Serializable, ..RangeRequest::new(key) };
        let found = self.kv.range(request).await?;
        let id = match found.kvs.first() {
            Some(kv) => read_id(&kv.value)?,
            None => FIRST.to_owned(),
        };
        let mut current = self.current.lock();
        // Who rotated meanwhile knows better.
        match &*current {
            Some((newer, since)) if *since > asked => Ok(newer.clone()),
            _ => Ok(current.insert((id, asked)).0.clone()),
        }
    }

    /// Another key seals from now on: its ID.
    pub(super) async fn rotate(&self) -> Result<String, KvError> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let document = json!({ "format": FORMAT, "id": id }).to_string();
        let put = Op::put(CURRENT, document.into_bytes());
        self.kv.txn(Txn { success: vec![put], ..Txn::default() }.into()).await?;
        *self.current.lock() = Some((id.clone(), Instant::now()));
        Ok(id)
    }

    fn sealer(&self, id: &str) -> Arc<Sealer> {
        if let Some(sealer) = self.sealers.read().get(id) {
            return Arc::clone(sealer);
        }
        let sealer = Arc::new(Sealer::derive(&self.secret, &format!("objects/{id}")));
        Arc::clone(self.sealers.write().entry(id.to_owned()).or_insert(sealer))
    }

    /// The value that is stored for a plain one.
    pub(super) fn seal(&self, key: &[u8], plain: &[u8], id: &str) -> Result<Vec<u8>, KvError> {
        let name = String::from_utf8_lossy(key);
        let sealed = self.sealer(id).seal(&name, plain);
        let sealed = sealed.map_err(|error| failed(&format!("sealing {name}"), &error))?;
        Ok([PREFIX, id.as_bytes(), b":", &sealed].concat())
    }

    /// The ID by whose key a value is sealed; `None` where it is plain.
    pub(super) fn id_of(value: &[u8]) -> Option<&str> {
        let rest = value.strip_prefix(PREFIX)?;
        let end = rest.iter().position(|byte| *byte == b':')?;
        std::str::from_utf8(&rest[..end]).ok()
    }

    /// The plain value of a stored one.
    pub(super) fn open(&self, key: &[u8], value: &[u8]) -> Result<Vec<u8>, KvError> {
        let Some(id) = Self::id_of(value) else { return Ok(value.to_vec()) };
        let name = String::from_utf8_lossy(key);
        let sealed = &value[PREFIX.len() + id.len() + 1..];
        let plain = self.sealer(id).open(&name, sealed);
        plain.map_err(|error| failed(&format!("opening {name}"), &error))
    }

    /// The same for those that are sealed.
    pub(super) fn open_all(&self, kvs: &mut [KeyValue]) -> Result<(), KvError> {
        for kv in kvs.iter_mut().filter(|kv| kv.value.starts_with(PREFIX)) {
            kv.value = self.open(&kv.key, &kv.value)?.into();
        }
        Ok(())
    }

    /// The same in a watch. What cannot be opened stays as it is: no object comes of it.
    pub(super) fn open_event(&self, event: &mut Event) {
        let both = std::iter::once(&mut event.kv).chain(event.prev_kv.as_mut());
        for kv in both {
            if let Err(error) = self.open_all(std::slice::from_mut(kv)) {
                tracing::error!(%error, "a sealed value in a watch");
            }
        }
    }
}

fn read_id(document: &[u8]) -> Result<String, KvError> {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    let id = document["id"].as_str().filter(|_| document["format"] == FORMAT);
    id.map(str::to_owned).ok_or_else(|| KvError::Unavailable {
        reason: format!("{CURRENT} is not of format {FORMAT}: a newer server may have written it"),
    })
}

fn failed(act: &str, error: &dyn std::error::Error) -> KvError {
    KvError::Unavailable { reason: format!("{act}: {error}") }
}
