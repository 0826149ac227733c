//! Certificates on disk.
//!
//! ```text
//! DATA-DIR/pki/
//!   ca.crt ca.key             cluster authority (the key on servers only)
//!   peer-ca.crt peer-ca.key   peer authority
//!   front-proxy-ca.crt .key   front proxy authority
//!   front-proxy-client.crt .key  this API server, to aggregated ones
//!   api.crt api.key           this API server
//!   peer.crt peer.key         this member, to its peers
//!   kubelet-client.crt .key   this API server, to nodes
//!   admin.crt admin.key       an administrator
//! ```
//!
//! Everything below the authorities is made by this server for itself, and made anew at start when
//! it is missing, about to expire, or does not cover the server's addresses. Keys have mode 0600.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Authority, Identity, PkiError, Profile, RENEW_BEFORE, inspect, tls};
use crate::token::{Role, Token};

const FRONT_PROXY_CA: &str = "kontiki-front-proxy-ca";

/// Where certificates live under a data directory.
#[derive(Debug, Clone)]
pub struct PkiDir(PathBuf);

impl PkiDir {
    /// That of a data directory.
    pub fn of(data_dir: &Path) -> Self {
        Self(data_dir.join("pki"))
    }

    /// The path of a certificate.
    pub fn cert(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.crt"))
    }

    /// The path of a key.
    pub fn key(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.key"))
    }

    /// Whether `name` is there.
    pub fn has(&self, name: &str) -> bool {
        self.cert(name).exists()
    }

    /// Reads a certificate and its key.
    pub fn read(&self, name: &str) -> Result<Identity, PkiError> {
        let read = |path: PathBuf| {
            std::fs::read_to_string(&path).map_err(|source| file_error("read", &path, source))
        };
        Ok(Identity { cert_pem: read(self.cert(name))?, key_pem: read(self.key(name))? })
    }

    /// Reads a certificate alone.
    pub fn read_cert(&self, name: &str) -> Result<String, PkiError> {
        let path = self.cert(name);
        std::fs::read_to_string(&path).map_err(|source| file_error("read", &path, source))
    }

    /// Writes a certificate and its key; the key first, so that a certificate never lacks its key.
    pub fn write(&self, name: &str, identity: &Identity) -> Result<(), PkiError> {
        self.create()?;
        write_file(&self.key(name), &identity.key_pem, 0o600)?;
        write_file(&self.cert(name), &identity.cert_pem, 0o644)
    }

    /// Writes a certificate alone.
    pub fn write_cert(&self, name: &str, cert_pem: &str) -> Result<(), PkiError> {
        self.create()?;
        write_file(&self.cert(name), cert_pem, 0o644)
    }

    fn create(&self) -> Result<(), PkiError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(|source| file_error("create", &self.0, source))
    }
}

fn file_error(act: &'static str, path: &Path, source: std::io::Error) -> PkiError {
    PkiError::File { act, path: path.display().to_string(), source }
}

/// Writes a file whole or not at all, synced: half a key would lock its owner out for good.
pub fn write_file(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let partial = path.with_extension("partial");
    let write = || {
        match std::fs::remove_file(&partial) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    write().map_err(|source| file_error("write", path, source))
}

/// What a server knows: the authorities with their keys.
pub struct ServerPki {
    /// For API servers, nodes, clients.
    pub ca: Authority,
    /// For Raft peers.
    pub peer_ca: Authority,
    /// For API servers that lead requests on to aggregated ones.
    pub front_proxy_ca: Authority,
}

impl ServerPki {
    /// New authorities, for a new cluster.
    pub fn create() -> Result<Self, PkiError> {
        Ok(Self {
            ca: Authority::create("kontiki-ca")?,
            peer_ca: Authority::create("kontiki-peer-ca")?,
            front_proxy_ca: Authority::create(FRONT_PROXY_CA)?,
        })
    }

    /// Those in a directory. Servers of before the front proxy's authority each make one for
    /// themselves: aggregated API servers are told of them all.
    pub fn load(dir: &PkiDir) -> Result<Self, PkiError> {
        let load = |name| Authority::load(&dir.cert(name).display().to_string(), dir.read(name)?);
        if !dir.has("front-proxy-ca") {
            dir.write("front-proxy-ca", Authority::create(FRONT_PROXY_CA)?.identity())?;
        }
        let front_proxy_ca = load("front-proxy-ca")?;
        Ok(Self { ca: load("ca")?, peer_ca: load("peer-ca")?, front_proxy_ca })
    }

    /// Those in a directory, or new ones where there are none.
    pub fn load_or_create(dir: &PkiDir) -> Result<Self, PkiError> {
        if dir.has("ca") && dir.has("peer-ca") {
            return Self::load(dir);
        }
        let pki = Self::create()?;
        pki.write_authorities(dir)?;
        Ok(pki)
    }

    /// Writes the authorities. The cluster's last: `ca.crt` is what says that they are there.
    pub fn write_authorities(&self, dir: &PkiDir) -> Result<(), PkiError> {
        dir.write("front-proxy-ca", self.front_proxy_ca.identity())?;
        dir.write("peer-ca", self.peer_ca.identity())?;
        dir.write("ca", self.ca.identity())
    }

    /// The token that lets a `role` in.
    pub fn token(&self, role: Role) -> Result<Token, PkiError> {
        Ok(Token::derive(&self.ca.cert_der()?, self.ca.key_der(), role))
    }

    /// What all servers know, each from the authority's key, and nobody else: what the store keeps is
    /// sealed with what is derived from it.
    pub fn secret(&self) -> Vec<u8> {
        // Hashed twice with the key in both, as join tokens are.
        let key = self.ca.key_der();
        let inner =
            Sha256::new().chain_update(b"kontiki seal secret 1\0").chain_update(key).finalize();
        Sha256::new().chain_update(key).chain_update(inner).finalize().to_vec()
    }

    /// Makes what the server `name` needs and does not have.
    pub fn ensure_server(
        &self,
        dir: &PkiDir,
        name: &str,
        advertise: &[String],
    ) -> Result<(), PkiError> {
        ensure(dir, "api", &self.ca, &Profile::api_server(advertise))?;
        ensure(dir, "peer", &self.peer_ca, &Profile::peer(name, advertise))?;
        ensure(dir, "kubelet-client", &self.ca, &Profile::kubelet_client())?;
        ensure(dir, "front-proxy-client", &self.front_proxy_ca, &Profile::front_proxy_client())?;
        ensure(dir, "admin", &self.ca, &Profile::admin())
    }
}

/// Makes a certificate unless a good one is there. One of another authority is refused, not
/// replaced: it says that directories were mixed up.
fn ensure(
    dir: &PkiDir,
    name: &str,
    authority: &Authority,
    profile: &Profile,
) -> Result<(), PkiError> {
    if dir.has(name) {
        let path = dir.cert(name).display().to_string();
        let cert_pem = dir.read_cert(name)?;
        tls::check_issued_by(&path, &cert_pem, authority.cert_pem())?;
        let inspected = inspect(&path, &cert_pem)?;
        if inspected.left() > RENEW_BEFORE && inspected.covers(profile) {
            return Ok(());
        }
        tracing::info!("renewing {path}: valid until {}", inspected.not_after_text);
    }
    dir.write(name, &authority.issue(profile)?)
}
