//! Which member of which cluster this server is: from its data directory, or by beginning or joining.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, bail};

use super::config::{Origin, ServerConfig};
use crate::dir_lock::DirLock;
use crate::enroll::server::enroll;
use crate::member::{MemberError, MemberRecord};
use crate::pki::files::{PkiDir, ServerPki};
use crate::pki::{PkiError, tls};
use crate::token::{Role, Token};

/// The founder's member id.
pub const FOUNDER_ID: u64 = 1;

/// Who this server is.
pub struct Identity {
    /// Its record.
    pub record: MemberRecord,
    /// The cluster's authorities.
    pub pki: ServerPki,
    /// Its certificates.
    pub dir: PkiDir,
    /// No second process may use the directory.
    _lock: DirLock,
}

impl Identity {
    /// Finds out, or makes it so.
    pub async fn establish(config: &ServerConfig) -> anyhow::Result<Self> {
        let data_dir = &config.data_dir;
        own_directory(data_dir)?;
        let lock = DirLock::acquire(data_dir, "server")?;
        let dir = PkiDir::of(data_dir);
        let found = MemberRecord::find_for(data_dir, &config.name)?;
        if let Some(record) = &found {
            record.check_not_removed(data_dir)?;
        } else {
            refuse_store_without_record(data_dir)?;
        }
        let (record, pki) = match (found, &config.origin) {
            (Some(record), origin) => (record, resume(&dir, data_dir, origin)?),
            (None, Origin::Init) => init(&dir, data_dir, &config.name)?,
            (None, Origin::Join { servers, token }) => join(&dir, config, servers, token).await?,
            (None, Origin::Resume) => bail!(
                "{} holds no member: begin a new cluster with --init, or enter one with --join URL \
                 --token TOKEN",
                data_dir.display()
            ),
        };
        pki.ensure_server(&dir, &config.name, &config.hosts())?;
        write_tokens(data_dir, &pki)?;
        Ok(Self { record, pki, dir, _lock: lock })
    }
}

/// The directory is nobody's but the server's: everything of the cluster is in it.
fn own_directory(data_dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(data_dir).with_context(|| format!("create {}", data_dir.display()))?;
    std::fs::set_permissions(data_dir, Permissions::from_mode(0o700))
        .with_context(|| format!("keep others out of {}", data_dir.display()))
}

/// Data without the record of whose it is must not be taken over under a new id (R8).
fn refuse_store_without_record(data_dir: &Path) -> anyhow::Result<()> {
    let store = data_dir.join("store");
    if store.exists() {
        bail!(
            "{} holds a store but no member.json: whose it is cannot be told. Move it away and \
             start with --join: the server comes back as a new member",
            data_dir.display()
        );
    }
    Ok(())
}

fn resume(dir: &PkiDir, data_dir: &Path, origin: &Origin) -> anyhow::Result<ServerPki> {
    let pki = ServerPki::load(dir)?;
    if let Origin::Join { token, .. } = origin
        && tls::pin_of("ca.crt", pki.ca.cert_pem())? != token.ca_hash
    {
        return Err(MemberError::OtherCluster { path: data_dir.display().to_string() }.into());
    }
    Ok(pki)
}

fn init(dir: &PkiDir, data_dir: &Path, name: &str) -> anyhow::Result<(MemberRecord, ServerPki)> {
    // `up` puts the authorities there beforehand, to have the tokens.
    let pki = ServerPki::load_or_create(dir)?;
    let cluster_id = format!("{:032x}", rand::random::<u128>());
    let record = MemberRecord::new(&cluster_id, FOUNDER_ID, name, true);
    record.write(data_dir)?;
    Ok((record, pki))
}

async fn join(
    dir: &PkiDir,
    config: &ServerConfig,
    servers: &[String],
    token: &Token,
) -> anyhow::Result<(MemberRecord, ServerPki)> {
    let enrolled = enroll(servers, token, &config.name).await?;
    let pki = enrolled.authorities()?;
    pki.write_authorities(dir)?;
    let record = MemberRecord::new(&enrolled.cluster_id, enrolled.node_id, &config.name, false);
    record.write(&config.data_dir)?;
    Ok((record, pki))
}

/// For whoever is to join: `server-token` and `node-token` beside the data.
fn write_tokens(data_dir: &Path, pki: &ServerPki) -> Result<(), PkiError> {
    for role in [Role::Server, Role::Node] {
        let path = data_dir.join(format!("{}-token", role.name()));
        crate::pki::files::write_file(&path, &format!("{}\n", pki.token(role)?), 0o600)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compaction::Retention;
    use crate::server::config::Scope;

    fn config(data_dir: &Path, origin: Origin) -> ServerConfig {
        let any = ([127, 0, 0, 1], 0).into();
        ServerConfig {
            cluster_cidr: crate::cluster_cidr::ClusterCidr::default(),
            cloud: crate::cloud::Choice::None,
            cluster_name: "kubernetes".into(),
            name: "s1".into(),
            data_dir: data_dir.into(),
            origin,
            scope: Scope::ControlPlane,
            api_listen: any,
            raft_listen: any,
            etcd_listen: any,
            etcd_tls: None,
            retention: Retention::Everything,
            advertise: "127.0.0.1".into(),
            peer_advertise: "127.0.0.1".into(),
            admission_plugins: Vec::new(),
            admission_configuration: kontiki_api::admission::AdmissionConfiguration::default(),
            authentication: None,
            token_webhook: None,
            authorization: None,
            audit: None,
            encrypted: Vec::new(),
        }
    }

    async fn refused(data_dir: &Path, origin: Origin) -> String {
        let error = Identity::establish(&config(data_dir, origin)).await.err().unwrap();
        format!("{error:#}")
    }

    #[tokio::test]
    async fn a_member_stays_who_it_is_and_init_does_not_begin_twice() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::establish(&config(dir.path(), Origin::Init)).await.unwrap().record;
        let again = Identity::establish(&config(dir.path(), Origin::Init)).await.unwrap().record;
        assert_eq!(first, again);
        let resumed = Identity::establish(&config(dir.path(), Origin::Resume)).await.unwrap();
        assert_eq!(first, resumed.record);
    }

    #[tokio::test]
    async fn a_directory_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _held = Identity::establish(&config(dir.path(), Origin::Init)).await.unwrap();
        let error = refused(dir.path(), Origin::Resume).await;
        assert!(error.contains("in use by another `kontiki server`"), "{error}");
    }

    #[tokio::test]
    async fn an_empty_directory_without_a_word_of_what_to_do_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = refused(dir.path(), Origin::Resume).await;
        assert!(error.contains("holds no member: begin a new cluster with --init"), "{error}");
    }

    #[tokio::test]
    async fn data_whose_owner_is_not_known_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        let error = refused(dir.path(), Origin::Init).await;
        assert!(error.contains("holds a store but no member.json"), "{error}");
    }

    #[tokio::test]
    async fn a_token_of_another_cluster_does_not_move_a_member() {
        let dir = tempfile::tempdir().unwrap();
        Identity::establish(&config(dir.path(), Origin::Init)).await.unwrap();
        let token = ServerPki::create().unwrap().token(Role::Server).unwrap();
        let error = refused(dir.path(), Origin::Join { servers: vec![], token }).await;
        assert!(error.contains("belongs to another cluster"), "{error}");
    }
}
