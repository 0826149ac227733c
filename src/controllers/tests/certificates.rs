//! Requests to certify keys, and mirrors of endpoints, over a store in memory.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kontiki_api::object::Object;
use kontiki_api::registry::options::{DeleteOptions, Part};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;

use super::cluster::Cluster;

fn request(name: &str, group: &str) -> CertificateSigningRequest {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "ann");
    params.distinguished_name.push(DnType::OrganizationName, group);
    let key = KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let mut request: CertificateSigningRequest = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "request": "", "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"], "expirationSeconds": 3600, "username": "somebody else",
        },
    }))
    .unwrap();
    request.spec.request = ByteString(pem.into_bytes());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approved_request_gets_its_certificate() {
    let cluster = Cluster::with_nodes(&[]).await;
    let made = cluster.create(&request("ann", "dev")).await;
    assert_eq!(made.spec.username.as_deref(), Some("system:kontiki:server"), "who asks is known");
    let mut approved = made;
    let status = approved.status.get_or_insert_default();
    status.conditions = Some(vec![CertificateSigningRequestCondition {
        type_: "Approved".to_owned(),
        status: "True".to_owned(),
        reason: Some("ByHand".to_owned()),
        ..CertificateSigningRequestCondition::default()
    }]);
    let kind = cluster.client.kind_of::<CertificateSigningRequest>().unwrap();
    let object = Object::from_typed(&approved).unwrap();
    let outsider = cluster.client.as_user("eve", &[]);
    let refused = outsider.update_object(kind, Part::Approval, object.clone()).await.unwrap_err();
    assert!(refused.is_forbidden(), "{refused}");
    cluster.client.update_object(kind, Part::Approval, object).await.unwrap();
    let issued = async || {
        let request = cluster.client.get::<CertificateSigningRequest>("", "ann").await.ok()?;
        request.status?.certificate
    };
    let certificate = cluster.until("the certificate is there", issued).await;
    let pem = String::from_utf8(certificate.0).unwrap();
    let left = crate::pki::inspect("the certificate", &pem).unwrap().left();
    assert!(left.as_secs() <= 3600, "as long as was asked for: {left:?}");
    let masters = cluster.client.create(&request("root", "system:masters")).await.unwrap_err();
    assert!(masters.message().contains("system:masters group is not allowed"), "{masters}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_by_hand_are_mirrored_while_they_are_there() {
    let cluster = Cluster::with_nodes(&[]).await;
    let service: Service = serde_json::from_value(json!({
        "metadata": { "name": "db", "namespace": "default" },
        "spec": { "ports": [{ "name": "sql", "port": 5432 }] },
    }))
    .unwrap();
    cluster.create(&service).await;
    let endpoints: Endpoints = serde_json::from_value(json!({
        "metadata": { "name": "db", "namespace": "default" },
        "subsets": [{
            "addresses": [{ "ip": "192.0.2.7" }], "ports": [{ "name": "sql", "port": 5432 }],
        }],
    }))
    .unwrap();
    cluster.create(&endpoints).await;
    let mirrors = async || cluster.list::<EndpointSlice>("default").await;
    let mirror = async || mirrors().await.pop();
    let slice = cluster.until("the mirror is there", mirror).await;
    assert_eq!(slice.endpoints[0].addresses, ["192.0.2.7"]);
    let changed = json!({ "subsets": [{
        "addresses": [{ "ip": "192.0.2.8" }], "ports": [{ "name": "sql", "port": 5432 }],
    }]});
    cluster.patch::<Endpoints>("db", changed).await;
    let follows = async || {
        let slice = mirrors().await.pop()?;
        (slice.endpoints[0].addresses == ["192.0.2.8"]).then_some(())
    };
    cluster.until("the mirror follows", follows).await;
    cluster.client.delete::<Endpoints>("default", "db", &DeleteOptions::default()).await.unwrap();
    cluster.until("the mirror goes", async || mirrors().await.is_empty().then_some(())).await;
    cluster.stop().await;
}
