//! Certificates. A cluster has three authorities:
//!
//! - the **cluster CA** vouches for API servers, nodes and API clients;
//! - the **peer CA** vouches for members of the Raft group, so that no API client, whatever its
//!   certificate, can speak to the store;
//! - the **front proxy CA** vouches for API servers to aggregated ones, which believe those it vouches
//!   for whatever they say of who asks.
//!
//! Keys are ECDSA P-256: made in under a millisecond. [`files`] is the layout on disk, [`tls`] makes
//! client configurations of them.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use thiserror::Error;

pub mod files;
pub mod mutual;
pub mod tls;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long an authority is valid.
const AUTHORITY_VALIDITY: Duration = DAY.saturating_mul(3650);
/// How long all other certificates are valid.
const LEAF_VALIDITY: Duration = DAY.saturating_mul(365);
/// A certificate with less time left than this is made anew when its owner starts.
pub const RENEW_BEFORE: Duration = DAY.saturating_mul(30);
/// Certificates are valid from a while ago, for machines whose clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// The group that may do everything.
pub const ADMIN_GROUP: &str = "system:masters";
/// The name of API servers to aggregated ones.
pub const FRONT_PROXY_CLIENT: &str = "front-proxy-client";
/// The group of all nodes.
pub const NODES_GROUP: &str = "system:nodes";
/// What a node's name is prefixed with to be its user name.
pub const NODE_USER_PREFIX: &str = "system:node:";
/// The first address of the service network: `kubernetes.default` within the cluster.
pub const KUBERNETES_SERVICE_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1));
/// The address of the service network under which pods find the cluster's names.
pub const CLUSTER_DNS_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10));
/// The domain of the cluster's names.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// What went wrong with certificates.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A key or certificate could not be made.
    #[error("make the certificate of {subject}")]
    Make {
        /// Whose.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A certificate or key cannot be read as one.
    #[error("{what} is not a valid PEM certificate or key: {reason}")]
    Malformed {
        /// Which file or message.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{act} {path}")]
    File {
        /// What was tried.
        act: &'static str,
        /// Which.
        path: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// An authority is past its time; nothing it vouches for is accepted any more.
    #[error("{what} expired at {not_after}; restore one that is valid, or begin a new cluster")]
    Expired {
        /// Which.
        what: String,
        /// When.
        not_after: String,
    },
    /// A certificate does not belong to this cluster.
    #[error("{what} was not issued by this cluster's authority {authority}: {reason}")]
    Foreign {
        /// Which.
        what: String,
        /// Whose it should be.
        authority: String,
        /// What the check said.
        reason: String,
    },
    /// TLS does not take the certificates.
    #[error("set up TLS with {what}")]
    Tls {
        /// With which.
        what: String,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
}

/// A certificate and its key, both PEM. An issued certificate is followed by its authority's, so
/// that a joiner who only knows the authority's hash can check the chain.
#[derive(Clone)]
pub struct Identity {
    /// The certificate chain.
    pub cert_pem: String,
    /// The private key, PKCS#8.
    pub key_pem: String,
}

/// What a certificate is for.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// CN: the user's name.
    pub common_name: String,
    /// O: the user's groups.
    pub organizations: Vec<String>,
    /// Host names it serves.
    pub dns_names: Vec<String>,
    /// Addresses it serves.
    pub addresses: Vec<IpAddr>,
}

impl Profile {
    /// The API server of one member.
    pub fn api_server(advertise: &[String]) -> Self {
        let mut profile = Self {
            common_name: "kube-apiserver".into(),
            dns_names: [
                "localhost",
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
            ]
            .map(String::from)
            .into(),
            addresses: vec![
                IpAddr::from([127, 0, 0, 1]),
                std::net::Ipv6Addr::LOCALHOST.into(),
                KUBERNETES_SERVICE_IP,
            ],
            ..Self::default()
        };
        profile.add_hosts(advertise);
        profile
    }

    /// One member of the Raft group.
    pub fn peer(name: &str, advertise: &[String]) -> Self {
        let mut profile = Self {
            common_name: name.into(),
            dns_names: vec!["localhost".into(), kontiki_raft::config::PEER_DNS_NAME.into()],
            addresses: vec![IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()],
            ..Self::default()
        };
        profile.add_hosts(advertise);
        profile
    }

    /// An API client that may do everything.
    pub fn admin() -> Self {
        Self {
            common_name: "kubernetes-admin".into(),
            organizations: vec![ADMIN_GROUP.into()],
            ..Self::default()
        }
    }

    /// The API server as a client of the nodes (logs, exec).
    pub fn kubelet_client() -> Self {
        Self {
            common_name: "kube-apiserver-kubelet-client".into(),
            organizations: vec![ADMIN_GROUP.into()],
            ..Self::default()
        }
    }

    /// The API server as a client of aggregated ones.
    pub fn front_proxy_client() -> Self {
        Self { common_name: FRONT_PROXY_CLIENT.into(), ..Self::default() }
    }

    /// A worker node: client of the API, and server of its own logs and exec.
    pub fn node(name: &str, hosts: &[String]) -> Self {
        let mut profile = Self {
            common_name: format!("{NODE_USER_PREFIX}{name}"),
            organizations: vec![NODES_GROUP.into()],
            dns_names: vec![name.into(), "localhost".into()],
            addresses: vec![IpAddr::from([127, 0, 0, 1])],
        };
        profile.add_hosts(hosts);
        profile
    }

    fn add_hosts(&mut self, hosts: &[String]) {
        for host in hosts {
            match host.parse() {
                Ok(address) if !self.addresses.contains(&address) => self.addresses.push(address),
                Err(_) if !self.dns_names.contains(host) => self.dns_names.push(host.clone()),
                _ => {}
            }
        }
    }

    fn params(&self) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.common_name.as_str());
        for organization in &self.organizations {
            params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
        }
        for name in &self.dns_names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        params
            .subject_alt_names
            .extend(self.addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Peers and nodes serve and call with one certificate; clients never serve.
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        if !params.subject_alt_names.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, LEAF_VALIDITY);
        Ok(params)
    }
}

fn set_validity(params: &mut CertificateParams, validity: Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + (now + validity);
}

/// An authority with its key.
pub struct Authority {
    name: String,
    identity: Identity,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    pub fn create(name: &str) -> Result<Self, PkiError> {
        Self::create_valid_for(name, AUTHORITY_VALIDITY)
    }

    fn create_valid_for(name: &str, validity: Duration) -> Result<Self, PkiError> {
        let make = || {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::KeyCertSign,
                KeyUsagePurpose::CrlSign,
            ];
            set_validity(&mut params, validity);
            let cert = params.self_signed(&key)?;
            let identity = Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() };
            Ok(Self { name: name.into(), identity, issuer: Issuer::new(params, key) })
        };
        make().map_err(|source| PkiError::Make { subject: name.into(), source })
    }

    /// One that exists; `name` is for messages.
    pub fn load(name: &str, identity: Identity) -> Result<Self, PkiError> {
        let parse = || {
            let key = KeyPair::from_pem(&identity.key_pem)?;
            Issuer::from_ca_cert_pem(&identity.cert_pem, key)
        };
        let issuer = parse().map_err(|error| PkiError::Malformed {
            what: name.into(),
            reason: error.to_string(),
        })?;
        let validity = inspect(name, &identity.cert_pem)?;
        if validity.left().is_zero() {
            return Err(PkiError::Expired {
                what: name.into(),
                not_after: validity.not_after_text,
            });
        }
        Ok(Self { name: name.into(), identity, issuer })
    }

    /// Its certificate and key.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its certificate, PEM.
    pub fn cert_pem(&self) -> &str {
        &self.identity.cert_pem
    }

    /// Its certificate, DER.
    pub fn cert_der(&self) -> Result<CertificateDer<'static>, PkiError> {
        first_certificate(&self.name, &self.identity.cert_pem)
    }

    /// Its private key, DER.
    pub fn key_der(&self) -> &[u8] {
        self.issuer.key().serialized_der()
    }

    /// A new key, and a certificate for it.
    pub fn issue(&self, profile: &Profile) -> Result<Identity, PkiError> {
        let make = || {
            let key = KeyPair::generate()?;
            let cert = profile.params()?.signed_by(&key, &self.issuer)?;
            Ok(Identity { cert_pem: self.chain(&cert.pem()), key_pem: key.serialize_pem() })
        };
        make().map_err(|source| self.make_error(profile, source))
    }

    /// A certificate for the key of a request. Only the key is taken from it: name, groups and
    /// hosts are what `profile` says, not what the requester wishes.
    pub fn sign(&self, request_pem: &str, profile: &Profile) -> Result<String, PkiError> {
        let mut request = parse_request(request_pem)?;
        let mut make = || {
            request.params = profile.params()?;
            request.signed_by(&self.issuer)
        };
        let cert = make().map_err(|source| self.make_error(profile, source))?;
        Ok(self.chain(&cert.pem()))
    }

    /// A certificate for the key, the subject and the hosts of a request, for no longer than one of
    /// the cluster's own. The certificate alone, without its authority's.
    pub fn certify(
        &self,
        request_pem: &str,
        usages: &[Usage],
        asked: Option<Duration>,
    ) -> Result<String, PkiError> {
        let mut request = parse_request(request_pem)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = request.params.distinguished_name.clone();
        params.subject_alt_names = std::mem::take(&mut request.params.subject_alt_names);
        for usage in usages {
            match usage {
                Usage::DigitalSignature => {
                    params.key_usages.push(KeyUsagePurpose::DigitalSignature);
                }
                Usage::KeyEncipherment => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                Usage::ClientAuth => {
                    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
                }
                Usage::ServerAuth => {
                    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
                }
            }
        }
        params.use_authority_key_identifier_extension = true;
        let left = inspect(&self.name, self.cert_pem())?.left();
        set_validity(&mut params, asked.unwrap_or(LEAF_VALIDITY).min(LEAF_VALIDITY).min(left));
        request.params = params;
        let cert = request.signed_by(&self.issuer).map_err(|source| PkiError::Make {
            subject: format!("a request (by {})", self.name),
            source,
        })?;
        Ok(cert.pem())
    }

    fn chain(&self, cert_pem: &str) -> String {
        format!("{cert_pem}{}", self.identity.cert_pem)
    }

    fn make_error(&self, profile: &Profile, source: rcgen::Error) -> PkiError {
        PkiError::Make { subject: format!("{} (by {})", profile.common_name, self.name), source }
    }
}

fn parse_request(pem: &str) -> Result<CertificateSigningRequestParams, PkiError> {
    CertificateSigningRequestParams::from_pem(pem).map_err(|error| PkiError::Malformed {
        what: "the signing request".into(),
        reason: error.to_string(),
    })
}

/// What a certified key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// To sign what is said.
    DigitalSignature,
    /// To be given keys.
    KeyEncipherment,
    /// To prove who calls.
    ClientAuth,
    /// To prove who is called.
    ServerAuth,
}

/// Certifies keys, as their requests say.
pub trait Certify: Send + Sync {
    /// See [`Authority::certify`].
    fn certify(
        &self,
        request_pem: &str,
        usages: &[Usage],
        asked: Option<Duration>,
    ) -> Result<String, PkiError>;
}

impl Certify for Authority {
    fn certify(
        &self,
        request_pem: &str,
        usages: &[Usage],
        asked: Option<Duration>,
    ) -> Result<String, PkiError> {
        Self::certify(self, request_pem, usages, asked)
    }
}

/// What a request wants to be certified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    /// CN: the user's name.
    pub common_name: String,
    /// O: the user's groups.
    pub organizations: Vec<String>,
    /// How many names and addresses it wants to serve.
    pub hosts: usize,
    /// Whether it wants names of other sorts, too: of mail or of resources.
    pub has_other_names: bool,
}

impl Requested {
    /// Reads a request; the error says what is wrong with it.
    pub fn read(pem: &str) -> Result<Self, String> {
        use x509_parser::certification_request::X509CertificationRequest;
        use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension};
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| error.to_string())?;
        let (_, request) =
            X509CertificationRequest::from_der(&der).map_err(|error| error.to_string())?;
        let subject = &request.certification_request_info.subject;
        let text = |name: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            name.as_str().unwrap_or_default().to_owned()
        };
        let names: Vec<&GeneralName<'_>> = request
            .requested_extensions()
            .into_iter()
            .flatten()
            .filter_map(|extension| match extension {
                ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
                _ => None,
            })
            .flatten()
            .collect();
        let is_host = |name: &&&GeneralName<'_>| {
            matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_))
        };
        let hosts = names.iter().filter(is_host).count();
        Ok(Self {
            common_name: subject.iter_common_name().next().map(text).unwrap_or_default(),
            organizations: subject.iter_organization().map(text).collect(),
            hosts,
            has_other_names: hosts < names.len(),
        })
    }
}

/// A fresh key with a request to have it certified; the authority decides what is certified.
pub fn signing_request() -> Result<(String, String), PkiError> {
    let make = || {
        let key = KeyPair::generate()?;
        let request = CertificateParams::default().serialize_request(&key)?.pem()?;
        Ok((request, key.serialize_pem()))
    };
    make().map_err(|source| PkiError::Make { subject: "a signing request".into(), source })
}

/// Until when a certificate is good, and for whom.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// Its last second, since 1970.
    pub not_after_unix_s: i64,
    /// The same for people.
    pub not_after_text: String,
    /// The hosts it serves, names and addresses, sorted.
    pub hosts: Vec<String>,
}

impl Inspected {
    /// The time left; zero once expired.
    pub fn left(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let end = Duration::from_secs(u64::try_from(self.not_after_unix_s).unwrap_or(0));
        end.saturating_sub(now)
    }

    /// Whether it serves every host of `profile`.
    pub fn covers(&self, profile: &Profile) -> bool {
        let addresses = profile.addresses.iter().map(ToString::to_string);
        profile
            .dns_names
            .iter()
            .cloned()
            .chain(addresses)
            .all(|host| self.hosts.binary_search(&host).is_ok())
    }
}

/// Reads the first certificate of a PEM text; `what` is for messages.
pub fn inspect(what: &str, pem: &str) -> Result<Inspected, PkiError> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let malformed = |reason: String| PkiError::Malformed { what: what.into(), reason };
    let der = first_certificate(what, pem)?;
    let (_, cert) =
        X509Certificate::from_der(&der).map_err(|error| malformed(error.to_string()))?;
    let names = cert.subject_alternative_name().map_err(|error| malformed(error.to_string()))?;
    let mut hosts: Vec<String> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        })
        .collect();
    hosts.sort_unstable();
    let not_after = cert.validity().not_after;
    Ok(Inspected {
        not_after_unix_s: not_after.timestamp(),
        not_after_text: not_after.to_string(),
        hosts,
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn first_certificate(what: &str, pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| PkiError::Malformed { what: what.into(), reason: error.to_string() })
}

#[cfg(test)]
mod tests;
