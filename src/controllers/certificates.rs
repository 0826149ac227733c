//! Certifies keys: approves the requests of nodes' agents, signs what was approved, and takes away
//! what nobody needs any more.

pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use kontiki_api::authn::User;
use kontiki_api::authz::{Attributes, ResourceAttributes};
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use kontiki_api::object::Object;
use kontiki_api::registry::options::{DeleteOptions, Part};

use self::plan::{LOOK, Step, plan};
use super::owners;
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use crate::leader_context::LeaderContext;
use crate::pki::{Certify, Requested, Usage};

const GROUP: &str = "certificates.k8s.io";

/// Certifies.
pub struct Certificates {
    client: Client,
    requests: Arc<Informer<CertificateSigningRequest>>,
    signer: Arc<dyn Certify>,
}

/// The controller, ready to run. Its keys are names of requests.
pub fn controller(context: &LeaderContext, begin: u64) -> Controller<Certificates> {
    let requests = context.informers.of::<CertificateSigningRequest>();
    let reconciler = Certificates {
        client: context.client_of("certificate-controller"),
        requests: Arc::clone(&requests),
        signer: Arc::clone(&context.signer),
    };
    Controller::new("certificates", context, begin, reconciler)
        .watch(&requests, |request| vec![owners::name(&request.metadata).to_owned()])
}

#[async_trait]
impl Reconcile for Certificates {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Next, ReconcileError> {
        let Some(request) = self.requests.get("", name) else { return Ok(Next::OnChange) };
        let pem = String::from_utf8_lossy(&request.spec.request.0).into_owned();
        match plan(&request, &Requested::read(&pem), Timestamp::now()) {
            Step::Wait => {}
            Step::Review(part) => self.review(&request, part).await?,
            Step::Sign(usages) => self.sign(&request, &pem, &usages).await?,
            Step::Fail(why) => {
                self.write(&request, None, Some(("Failed", "SignerValidationFailure", &why)))
                    .await?;
            }
            Step::Delete => {
                let options = DeleteOptions::of_uid(owners::uid(&request.metadata));
                let gone =
                    self.client.delete::<CertificateSigningRequest>("", name, &options).await;
                if let Err(status) = gone
                    && !status.is_not_found()
                {
                    return Err(status).during(|| format!("deleting request {name}"));
                }
                return Ok(Next::OnChange);
            }
        }
        Ok(Next::After(LOOK))
    }
}

impl Certificates {
    /// Approves the request of a node's agent whose user may make such requests.
    async fn review(
        &self,
        request: &CertificateSigningRequest,
        part: &'static str,
    ) -> Result<(), ReconcileError> {
        let spec = &request.spec;
        let groups = spec.groups.clone().unwrap_or_default();
        let user = User {
            name: spec.username.clone().unwrap_or_default(),
            uid: spec.uid.clone().unwrap_or_default(),
            groups,
            extra: spec.extra.clone().unwrap_or_default(),
            ..User::default()
        };
        let attributes = Attributes::Resource(ResourceAttributes {
            verb: "create".into(),
            group: GROUP.into(),
            version: "*".into(),
            resource: "certificatesigningrequests".into(),
            subresource: part.into(),
            ..ResourceAttributes::default()
        });
        if !self.client.lets(&user, &attributes).await {
            return Ok(());
        }
        let message = match part {
            "selfnodeclient" => {
                "Auto approving self kubelet client certificate after SubjectAccessReview."
            }
            _ => "Auto approving kubelet client certificate after SubjectAccessReview.",
        };
        let mut approved = request.clone();
        let status = approved.status.get_or_insert_default();
        let conditions = status.conditions.get_or_insert_default();
        conditions.push(condition("Approved", "AutoApproved", message));
        let written = self.update(&approved, Part::Approval).await;
        written.during(|| format!("approving request {}", owners::name(&request.metadata)))
    }

    async fn sign(
        &self,
        request: &CertificateSigningRequest,
        pem: &str,
        usages: &[Usage],
    ) -> Result<(), ReconcileError> {
        let seconds = request.spec.expiration_seconds.and_then(|s| u64::try_from(s).ok());
        match self.signer.certify(pem, usages, seconds.map(Duration::from_secs)) {
            Ok(certificate) => self.write(request, Some(certificate), None).await,
            Err(error) => {
                let why =
                    std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source())
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(": ");
                self.write(request, None, Some(("Failed", "SigningError", &why))).await
            }
        }
    }

    async fn write(
        &self,
        request: &CertificateSigningRequest,
        certificate: Option<String>,
        failure: Option<(&str, &str, &str)>,
    ) -> Result<(), ReconcileError> {
        let mut told = request.clone();
        let status = told.status.get_or_insert_default();
        if let Some(certificate) = certificate {
            status.certificate = Some(ByteString(certificate.into_bytes()));
        }
        if let Some((kind, reason, message)) = failure {
            let conditions = status.conditions.get_or_insert_default();
            conditions.push(condition(kind, reason, message));
        }
        let written = self.update(&told, Part::Status).await;
        written.during(|| format!("signing request {}", owners::name(&request.metadata)))
    }

    async fn update(
        &self,
        request: &CertificateSigningRequest,
        part: Part,
    ) -> Result<(), kontiki_api::status::Status> {
        let kind = self.client.kind_of::<CertificateSigningRequest>()?;
        let object = Object::from_typed(request)?;
        self.client.update_object(kind, part, object).await.map(drop)
    }
}

fn condition(kind: &str, reason: &str, message: &str) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..CertificateSigningRequestCondition::default()
    }
}
