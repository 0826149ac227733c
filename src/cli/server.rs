//! `kontiki server`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::admission::AdmissionFlags;
use super::audit::AuditFlags;
use super::authentication::AuthenticationFlags;
use super::authorization::AuthorizationFlags;
use super::cloud::CloudFlags;
use crate::cluster_cidr::ClusterCidr;
use crate::compaction::{Mode, Retention};
use crate::server::config::{Origin, Scope, ServerConfig};
use crate::server::etcd_tls::EtcdTls;
use crate::token::{Role, Token};

/// How much history a control plane keeps, as upstream.
const DEFAULT_RETENTION: &str = "5m";

/// Flags of `kontiki server`.
#[derive(Debug, Args)]
pub struct Flags {
    /// The server's name; unique in its cluster.
    #[arg(long, env = "KONTIKI_NAME", default_value = "server-1")]
    name: String,
    /// What the server keeps. It belongs to one member of one cluster for good.
    #[arg(
        long,
        env = "KONTIKI_DATA_DIR",
        default_value = "./kontiki-data/server",
        value_name = "DIR"
    )]
    data_dir: PathBuf,
    /// Begin a new cluster, where the data directory does not hold a member already.
    #[arg(long, env = "KONTIKI_INIT")]
    init: bool,
    /// Join a cluster through one of its servers (several may be named), where the data directory
    /// does not hold a member already.
    #[arg(long, env = "KONTIKI_JOIN", value_name = "URL", value_delimiter = ',')]
    join: Vec<String>,
    /// The cluster's token for servers.
    #[arg(long, env = "KONTIKI_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File that holds the token.
    #[arg(long, env = "KONTIKI_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Run just the store and its etcd API: a member of an etcd cluster, without Kubernetes. Of the
    /// API only joining, status and health are served. All servers of a cluster run alike.
    #[arg(long, env = "KONTIKI_STORE_ONLY")]
    store_only: bool,
    /// Where to serve the Kubernetes API.
    #[arg(
        long,
        env = "KONTIKI_API_LISTEN",
        default_value = "0.0.0.0:6443",
        value_name = "ADDRESS"
    )]
    api_listen: SocketAddr,
    /// Where to listen for other members.
    #[arg(
        long,
        env = "KONTIKI_RAFT_LISTEN",
        default_value = "0.0.0.0:6453",
        value_name = "ADDRESS"
    )]
    raft_listen: SocketAddr,
    /// Where to serve the etcd API: plain on loopback, otherwise over mutual TLS. Without files of
    /// your own, clients need a certificate of the cluster's authority for an administrator.
    #[arg(
        long,
        env = "KONTIKI_ETCD_LISTEN",
        default_value = "127.0.0.1:6463",
        value_name = "ADDRESS"
    )]
    etcd_listen: SocketAddr,
    /// The certificate of the etcd API, PEM; with it also loopback speaks TLS.
    #[arg(
        long,
        env = "KONTIKI_ETCD_CERT_FILE",
        value_name = "FILE",
        requires_all = ["etcd_key_file", "etcd_client_ca_file"]
    )]
    etcd_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, env = "KONTIKI_ETCD_KEY_FILE", value_name = "FILE", requires = "etcd_cert_file")]
    etcd_key_file: Option<PathBuf>,
    /// The authority whose certificates let clients in.
    #[arg(
        long,
        env = "KONTIKI_ETCD_CLIENT_CA_FILE",
        value_name = "FILE",
        requires = "etcd_cert_file"
    )]
    etcd_client_ca_file: Option<PathBuf>,
    /// What the retention below is a number of.
    #[arg(long, env = "KONTIKI_AUTO_COMPACTION_MODE", value_enum, default_value = "periodic")]
    auto_compaction_mode: Mode,
    /// How much history is kept: a time such as 5m or 1h (or hours), or a number of revisions; 0 keeps
    /// all. By default 5m, and with --store-only all, as with etcd, whose clients compact it.
    #[arg(long, env = "KONTIKI_AUTO_COMPACTION_RETENTION", value_name = "RETENTION")]
    auto_compaction_retention: Option<String>,
    /// The host at which clients and nodes reach this server; by default this machine's address.
    #[arg(long, env = "KONTIKI_ADVERTISE", value_name = "HOST")]
    advertise: Option<String>,
    /// The host at which other members reach this server; by default as --advertise.
    #[arg(long, env = "KONTIKI_PEER_ADVERTISE", value_name = "HOST")]
    peer_advertise: Option<String>,
    #[command(flatten)]
    authentication: AuthenticationFlags,
    #[command(flatten)]
    authorization: AuthorizationFlags,
    #[command(flatten)]
    audit: AuditFlags,
    #[command(flatten)]
    admission: AdmissionFlags,
    /// The resources whose objects are encrypted in the store, such as `secrets` or
    /// `widgets.example.com`. All servers of a cluster run alike.
    #[arg(
        long,
        env = "KONTIKI_ENCRYPT_RESOURCES",
        value_name = "RESOURCE",
        value_delimiter = ',',
        default_value = "secrets"
    )]
    encrypt_resources: Vec<String>,
    /// The addresses of all pods, an IPv4 range; each node gets 256 of them. All servers of a cluster
    /// run alike, from the first start on: nodes keep what they were given.
    #[arg(
        long,
        env = "KONTIKI_CLUSTER_CIDR",
        value_name = "RANGE",
        default_value_t = ClusterCidr::default()
    )]
    cluster_cidr: ClusterCidr,
    #[command(flatten)]
    cloud: CloudFlags,
    /// Worker threads; by default half the cores, from one to four.
    #[arg(long, env = "KONTIKI_RUNTIME_THREADS", value_name = "COUNT")]
    runtime_threads: Option<usize>,
}

impl Flags {
    /// Checks what the flags say together.
    fn validate(self) -> anyhow::Result<ServerConfig> {
        check_name("--name", &self.name)?;
        let files = (self.etcd_cert_file, self.etcd_key_file, self.etcd_client_ca_file);
        let etcd_tls = match files {
            (Some(cert), Some(key), Some(client_ca)) => {
                Some(EtcdTls::Files { cert, key, client_ca })
            }
            _ if self.etcd_listen.ip().is_loopback() => None,
            _ => Some(EtcdTls::Cluster),
        };
        let token = read_token(self.token, self.token_file.as_deref(), Role::Server)?;
        let origin = origin(self.init, self.join, token)?;
        let (authentication, token_webhook) = self.authentication.validate()?;
        let (admission_plugins, admission_configuration) = self.admission.validate()?;
        let advertise =
            self.advertise.unwrap_or_else(|| default_advertise(self.api_listen.ip()).to_string());
        let kept = match (&self.auto_compaction_retention, self.auto_compaction_mode) {
            (Some(kept), _) => kept.as_str(),
            (None, Mode::Periodic) if !self.store_only => DEFAULT_RETENTION,
            (None, _) => "0",
        };
        let retention = Retention::parse(self.auto_compaction_mode, kept)?;
        Ok(ServerConfig {
            retention,
            name: self.name,
            data_dir: std::path::absolute(&self.data_dir)
                .with_context(|| format!("make {} absolute", self.data_dir.display()))?,
            origin,
            scope: if self.store_only { Scope::Store } else { Scope::ControlPlane },
            api_listen: self.api_listen,
            raft_listen: self.raft_listen,
            etcd_listen: self.etcd_listen,
            etcd_tls,
            peer_advertise: self.peer_advertise.unwrap_or_else(|| advertise.clone()),
            advertise,
            admission_plugins,
            admission_configuration,
            authentication,
            token_webhook,
            authorization: self.authorization.validate()?,
            audit: self.audit.validate()?,
            cluster_cidr: self.cluster_cidr,
            cloud: self.cloud.choice()?,
            cluster_name: self.cloud.cluster_name,
            encrypted: self.encrypt_resources.into_iter().filter(|one| !one.is_empty()).collect(),
        })
    }
}

/// Runs one server until it is told to stop.
pub fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let threads = flags.runtime_threads;
    let config = flags.validate()?;
    super::runtime(Some(threads.unwrap_or_else(default_threads)))?
        .block_on(crate::server::run(config))?;
    Ok(ExitCode::SUCCESS)
}

fn origin(init: bool, join: Vec<String>, token: Option<Token>) -> anyhow::Result<Origin> {
    match (init, join.is_empty(), token) {
        (true, false, _) => {
            bail!("--init begins a new cluster, --join enters one: give one of them")
        }
        (true, true, _) => Ok(Origin::Init),
        (false, false, Some(token)) => {
            for url in &join {
                check_url("--join", url)?;
            }
            Ok(Origin::Join { servers: join, token })
        }
        (false, false, None) => bail!(
            "--join needs --token or --token-file: the first server keeps it in \
             DATA-DIR/server-token"
        ),
        (false, true, _) => Ok(Origin::Resume),
    }
}

/// A token from a flag or a file.
pub(super) fn read_token(
    token: Option<String>,
    file: Option<&Path>,
    role: Role,
) -> anyhow::Result<Option<Token>> {
    let (source, text) = match (token, file) {
        (Some(_), Some(_)) => bail!("--token and --token-file are both given: give one of them"),
        (Some(token), None) => ("--token".to_owned(), token),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("--token-file {}", path.display()))?;
            (format!("--token-file {}", path.display()), text)
        }
        (None, None) => return Ok(None),
    };
    let token = text.parse::<Token>().and_then(|token| token.expect_role(role)).context(source)?;
    Ok(Some(token))
}

/// Refuses what is no URL of a server.
pub(super) fn check_url(flag: &str, url: &str) -> anyhow::Result<()> {
    let parsed = reqwest::Url::parse(url);
    match parsed {
        Ok(parsed) if parsed.scheme() == "https" && parsed.host().is_some() => Ok(()),
        _ => bail!("{flag} {url}: expected a URL such as https://192.0.2.2:6443"),
    }
}

/// Names become object names, host names and certificates: RFC 1123 labels.
pub(super) fn check_name(flag: &str, name: &str) -> anyhow::Result<()> {
    let fits = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
    };
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'-' && *byte != b'.');
    let bytes = name.as_bytes();
    if bytes.len() <= 253
        && bytes.iter().all(|b| fits(*b))
        && edge(bytes.first())
        && edge(bytes.last())
    {
        return Ok(());
    }
    bail!(
        "{flag} {name:?}: expected lower-case letters, digits, '-' and '.', beginning and ending \
         with a letter or digit"
    )
}

fn default_advertise(listen: IpAddr) -> IpAddr {
    if listen.is_unspecified() { super::up::primary_address() } else { listen }
}

/// One worker for two cores: what a server does is bound by CPU, and every further worker costs
/// wake-ups across threads. More than four did not pay.
fn default_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, 4)
}

/// The loopback address, for what only this machine may reach.
pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Verb};

    fn validate(line: &str) -> anyhow::Result<ServerConfig> {
        let args = line.split_whitespace().map(Into::into);
        let cli: Cli = crate::config::parse(args).unwrap();
        match cli.verb {
            Verb::Server(flags) => flags.validate(),
            other => panic!("{other:?}"),
        }
    }

    fn refused(line: &str) -> String {
        format!("{:#}", validate(line).unwrap_err())
    }

    #[test]
    fn joining_needs_a_token_for_servers() {
        assert!(
            refused("kontiki server --join https://[::1]:6443").contains("--join needs --token")
        );
        let node = Token::derive(b"cert", b"key", Role::Node);
        let line = format!("kontiki server --join https://[::1]:6443 --token {node}");
        assert!(refused(&line).contains("--token: this is a node token; a server token is needed"));
        let line = "kontiki server --join https://[::1]:6443 --token secret";
        assert!(refused(line).contains("--token: the token is malformed; expected KT1"));
    }

    #[test]
    fn flags_that_contradict_each_other_are_named() {
        let error = refused("kontiki server --init --join https://[::1]:6443");
        assert!(error.contains("give one of them"), "{error}");
        let error = refused("kontiki server --init --name Server_1");
        assert!(error.contains("--name \"Server_1\": expected lower-case"), "{error}");
        let token = Token::derive(b"cert", b"key", Role::Server);
        let error = refused(&format!("kontiki server --join 10.0.0.1 --token {token}"));
        assert!(error.contains("expected a URL such as"), "{error}");
    }

    #[test]
    fn files_of_policy_are_read_at_the_start_and_refused_with_their_flags() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let kind = "{apiVersion: apiserver.config.k8s.io/v1, kind: AuthorizationConfiguration";
        let good = file("good", &format!("{kind}, authorizers: [{{type: RBAC, name: rbac}}]}}"));
        let line = format!("kontiki server --init --authorization-config {good}");
        assert!(validate(&line).unwrap().authorization.is_some());
        let bad = file("bad", &format!("{kind}, authorizers: [{{type: ABAC, name: x}}]}}"));
        let error = refused(&format!("kontiki server --init --authorization-config {bad}"));
        assert!(error.contains("bad: authorizers[0].type: Unsupported value"), "{error}");
        let error = refused("kontiki server --init --authorization-config /no/file");
        assert!(error.contains("--authorization-config /no/file: No such file"), "{error}");
        let other = file("other", &format!("{kind}}}"));
        let error =
            refused(&format!("kontiki server --init --admission-control-config-file {other}"));
        assert!(error.contains("expected an AdmissionConfiguration"), "{error}");
    }

    #[test]
    fn the_etcd_api_is_plain_on_loopback_only() {
        let plain = validate("kontiki server --init").unwrap();
        assert_eq!((plain.etcd_tls.as_ref(), &*plain.etcd_address()), (None, "127.0.0.1:6463"));
        let line = "kontiki server --init --advertise 192.0.2.9 --etcd-listen 0.0.0.0:2379";
        let open = validate(line).unwrap();
        assert_eq!(open.etcd_tls, Some(EtcdTls::Cluster));
        assert_eq!(open.etcd_address(), "https://192.0.2.9:2379");
        let files = "--etcd-cert-file c --etcd-key-file k --etcd-client-ca-file a";
        let own = validate(&format!("kontiki server --init {files}")).unwrap();
        assert!(matches!(own.etcd_tls, Some(EtcdTls::Files { .. })));
        let line = "kontiki server --init --etcd-cert-file c";
        let args = line.split_whitespace().map(Into::into);
        assert!(crate::config::parse(args).is_err(), "a certificate alone");
    }

    #[test]
    fn a_control_plane_forgets_what_is_old_and_a_bare_store_only_when_told() {
        let retention = |line: &str| validate(line).unwrap().retention;
        let five_minutes = Retention::Age(std::time::Duration::from_secs(300));
        assert_eq!(retention("kontiki server --init"), five_minutes);
        assert_eq!(retention("kontiki server --init --store-only"), Retention::Everything);
        let line = "kontiki server --init --auto-compaction-mode revision";
        assert_eq!(retention(line), Retention::Everything);
        let line = format!("{line} --auto-compaction-retention 1000");
        assert_eq!(retention(&line), Retention::Revisions(1000));
        let line = "kontiki server --init --auto-compaction-retention soon";
        assert!(refused(line).contains("expected a time such as 5m"), "{}", refused(line));
    }

    #[test]
    fn peers_use_the_advertised_host_unless_told_otherwise() {
        let config = validate("kontiki server --init --advertise 192.0.2.9").unwrap();
        assert_eq!(config.peer_advertise, "192.0.2.9");
        let config = validate("kontiki server --init --api-listen 127.0.0.1:1").unwrap();
        assert_eq!(config.advertise, "127.0.0.1");
    }
}
