//! A node's way in: it makes its own keys and has them certified for its name and no other.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Node;
use kontiki_api::server::Caller;
use kontiki_api::status::Status;
use kontiki_node_agent::{ClientTls, ServingTls};
use serde::{Deserialize, Serialize};

use super::Door;
use crate::pki::files::{PkiDir, ServerPki};
use crate::pki::{
    Identity, NODE_USER_PREFIX, NODES_GROUP, PkiError, Profile, RENEW_BEFORE, inspect,
    signing_request, tls,
};
use crate::token::Token;

/// Who wants to be a node.
#[derive(Debug, Clone)]
pub struct NodeRequest {
    /// The node's name.
    pub node_name: String,
    /// The node's address.
    pub node_ip: IpAddr,
    /// Servers of the cluster.
    pub servers: Vec<String>,
}

/// What a node sends.
#[derive(Debug, Serialize, Deserialize)]
pub struct EnrollNode {
    /// The node's name.
    pub node_name: String,
    /// The hosts its own server is reached at.
    pub hosts: Vec<String>,
    /// Signing request of the client's key, PEM.
    pub client_request: String,
    /// Signing request of its server's key, PEM.
    pub serving_request: String,
}

/// What a node is given.
#[derive(Debug, Serialize, Deserialize)]
pub struct EnrolledNode {
    /// The cluster's authority, PEM.
    pub ca_cert: String,
    /// Its client certificate.
    pub client_cert: String,
    /// Its server certificate.
    pub serving_cert: String,
}

/// Whether the name is free for who asks: nobody has it, or the asker proves by the certificate it
/// still has that it is the node of that name. Otherwise whoever holds the token of nodes could
/// become any node and read what its pods may.
pub async fn check_name(caller: &Caller, request: &EnrollNode) -> Result<(), Status> {
    let name = &request.node_name;
    if caller.user.name == format!("{NODE_USER_PREFIX}{name}") && caller.user.is_in(NODES_GROUP) {
        return Ok(());
    }
    match caller.client.get::<Node>("", name).await {
        Err(status) if status.is_not_found() => Ok(()),
        Err(status) => Err(status),
        Ok(_) => Err(Status::conflict(
            "",
            "nodes",
            name,
            format!(
                "a node of this name is in the cluster, and this is not its agent's certificate; \
                 choose another --node-name, or remove that node first (kubectl delete node {name})"
            ),
        )),
    }
}

/// The server's half: certifies two keys for one name.
pub fn admit(pki: &ServerPki, request: &EnrollNode) -> Result<EnrolledNode, PkiError> {
    let profile = Profile::node(&request.node_name, &request.hosts);
    let sign = |csr: &str| pki.ca.sign(csr, &profile);
    Ok(EnrolledNode {
        ca_cert: pki.ca.cert_pem().to_owned(),
        client_cert: sign(&request.client_request)?,
        serving_cert: sign(&request.serving_request)?,
    })
}

/// The certificates of a node.
pub struct NodeIdentity {
    ca_pem: String,
    client: Identity,
    serving: Identity,
}

impl NodeIdentity {
    /// Those on disk, or new ones where there are none, they are about to expire, or the node's
    /// name or address has changed.
    pub async fn obtain(
        data_dir: &Path,
        request: &NodeRequest,
        token: Option<&Token>,
    ) -> anyhow::Result<Self> {
        let dir = PkiDir::of(data_dir);
        let mut old = None;
        if dir.has("client") {
            let identity = Self::read(&dir)?;
            if let Some(token) = token {
                identity.check_cluster(token, data_dir)?;
            }
            if identity.serves(request)? {
                return Ok(identity);
            }
            old = identity.is_valid()?.then_some(identity.client);
        }
        let Some(token) = token else {
            bail!(
                "{} holds no certificates of this node: give --token or --token-file (servers keep \
                 it in node-token)",
                data_dir.display()
            );
        };
        let identity = Self::enroll(request, token, old.as_ref()).await?;
        identity.write(&dir)?;
        Ok(identity)
    }

    fn read(dir: &PkiDir) -> Result<Self, PkiError> {
        let identity = Self {
            ca_pem: dir.read_cert("ca")?,
            client: dir.read("client")?,
            serving: dir.read("serving")?,
        };
        for name in ["client", "serving"] {
            let path = dir.cert(name).display().to_string();
            tls::check_issued_by(&path, &dir.read_cert(name)?, &identity.ca_pem)?;
        }
        Ok(identity)
    }

    fn check_cluster(&self, token: &Token, data_dir: &Path) -> anyhow::Result<()> {
        if tls::pin_of("ca.crt", &self.ca_pem)? == token.ca_hash {
            return Ok(());
        }
        bail!(
            "{} belongs to a node of another cluster than the one that the token is for: name \
             another --data-dir, or the token of that cluster",
            data_dir.display()
        )
    }

    /// Whether these are still good for what is asked.
    fn serves(&self, request: &NodeRequest) -> Result<bool, PkiError> {
        let serving = inspect("the serving certificate", &self.serving.cert_pem)?;
        let client = inspect("the client certificate", &self.client.cert_pem)?;
        let profile = Profile::node(&request.node_name, &[request.node_ip.to_string()]);
        let left = serving.left().min(client.left());
        Ok(left > RENEW_BEFORE && serving.covers(&profile))
    }

    /// Whether the client's certificate has any time left.
    fn is_valid(&self) -> Result<bool, PkiError> {
        Ok(!inspect("the client certificate", &self.client.cert_pem)?.left().is_zero())
    }

    /// `old` is the certificate that shows whose name it is, where there is one.
    async fn enroll(
        request: &NodeRequest,
        token: &Token,
        old: Option<&Identity>,
    ) -> anyhow::Result<Self> {
        let (client_request, client_key) = signing_request()?;
        let (serving_request, serving_key) = signing_request()?;
        let body = EnrollNode {
            node_name: request.node_name.clone(),
            hosts: vec![request.node_ip.to_string()],
            client_request,
            serving_request,
        };
        let door = Door::new(&request.servers, token, old)?;
        let enrolled: EnrolledNode = door
            .knock("node", &body)
            .await
            .with_context(|| format!("let node {} into the cluster", request.node_name))?;
        Ok(Self {
            ca_pem: enrolled.ca_cert,
            client: Identity { cert_pem: enrolled.client_cert, key_pem: client_key },
            serving: Identity { cert_pem: enrolled.serving_cert, key_pem: serving_key },
        })
    }

    /// The client's last: it is what says that the others are there.
    fn write(&self, dir: &PkiDir) -> Result<(), PkiError> {
        dir.write_cert("ca", &self.ca_pem)?;
        dir.write("serving", &self.serving)?;
        dir.write("client", &self.client)
    }

    /// As the agent takes them.
    pub fn into_tls(self) -> (ClientTls, ServingTls) {
        let client = ClientTls {
            ca_pem: self.ca_pem.clone(),
            cert_pem: self.client.cert_pem,
            key_pem: self.client.key_pem,
        };
        let serving = ServingTls {
            cert_pem: self.serving.cert_pem,
            key_pem: self.serving.key_pem,
            client_ca_pem: self.ca_pem,
        };
        (client, serving)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str) -> NodeRequest {
        NodeRequest { node_name: name.into(), node_ip: [192, 0, 2, 4].into(), servers: vec![] }
    }

    fn admitted(pki: &ServerPki, name: &str) -> NodeIdentity {
        let (client_request, client_key) = signing_request().unwrap();
        let (serving_request, serving_key) = signing_request().unwrap();
        let hosts = vec!["192.0.2.4".into()];
        let body = EnrollNode { node_name: name.into(), hosts, client_request, serving_request };
        let enrolled = admit(pki, &body).unwrap();
        NodeIdentity {
            ca_pem: enrolled.ca_cert,
            client: Identity { cert_pem: enrolled.client_cert, key_pem: client_key },
            serving: Identity { cert_pem: enrolled.serving_cert, key_pem: serving_key },
        }
    }

    #[tokio::test]
    async fn certificates_on_disk_need_no_token_and_no_server() {
        let dir = tempfile::tempdir().unwrap();
        let pki = ServerPki::create().unwrap();
        admitted(&pki, "n1").write(&PkiDir::of(dir.path())).unwrap();
        NodeIdentity::obtain(dir.path(), &request("n1"), None).await.unwrap();
        let error = NodeIdentity::obtain(dir.path(), &request("n2"), None).await.err().unwrap();
        assert!(error.to_string().contains("give --token"), "{error}");
    }

    #[tokio::test]
    async fn a_directory_of_another_clusters_node_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, other) = (ServerPki::create().unwrap(), ServerPki::create().unwrap());
        admitted(&ours, "n1").write(&PkiDir::of(dir.path())).unwrap();
        let token = other.token(crate::token::Role::Node).unwrap();
        let error =
            NodeIdentity::obtain(dir.path(), &request("n1"), Some(&token)).await.err().unwrap();
        assert!(error.to_string().contains("of another cluster than"), "{error}");
    }
}
