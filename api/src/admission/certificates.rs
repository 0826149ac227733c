//! [`Certificates`]: who approves a request for a certificate, or signs it, must be allowed to for
//! that signer; and nobody gets a client certificate of the group that may do everything.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::{Admit, Operation, Plugin};
use crate::authn::MASTERS;
use crate::authz::{Attributes, Authorizer, ResourceAttributes, decide};
use crate::object::Object;
use crate::resources::certificate_signing_request::KIND;
use crate::status::Status;

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Checks who decides on requests for certificates.
pub struct Certificates {
    authorizer: Arc<dyn Authorizer>,
}

impl Certificates {
    /// By the rights that this authorizer knows.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self { authorizer }
    }

    /// For the signer itself, or for all of its domain.
    async fn may(&self, admit: &Admit<'_>, verb: &'static str, signer: &str) -> bool {
        let domain = signer.split('/').next().unwrap_or_default();
        for name in [signer.to_owned(), format!("{domain}/*")] {
            let attributes = Attributes::Resource(ResourceAttributes {
                verb: verb.into(),
                group: KIND.group.to_owned(),
                version: "*".to_owned(),
                resource: "signers".to_owned(),
                name,
                ..ResourceAttributes::default()
            });
            if decide(&*self.authorizer, admit.ctx.user(), &attributes).await.is_ok() {
                return true;
            }
        }
        false
    }
}

#[async_trait]
impl Plugin for Certificates {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    async fn validate(&self, admit: &Admit<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(object) = object.filter(|_| std::ptr::eq(admit.kind, &raw const KIND)) else {
            return Ok(());
        };
        let refuse = |why: String| Err(Status::forbidden(KIND.group, KIND.plural, admit.name, why));
        if admit.operation == Operation::Create {
            let is_client = object.str_at("/spec/signerName") == CLIENT_SIGNER;
            if is_client && is_of(object, MASTERS) {
                return refuse(format!(
                    "use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"
                ));
            }
            return Ok(());
        }
        let Some(old) = admit.old else { return Ok(()) };
        let signer = old.str_at("/spec/signerName");
        let is_changed = |pointer: &str| object.at(pointer) != old.at(pointer);
        let decides = is_changed("/status/certificate") || is_changed("/status/conditions");
        let verb = match admit.subresource {
            "approval" => "approve",
            "status" if decides => "sign",
            _ => return Ok(()),
        };
        if self.may(admit, verb, signer).await {
            return Ok(());
        }
        refuse(format!("user not permitted to {verb} requests with signerName {signer:?}"))
    }
}

/// Whether a request is for a certificate of this organization.
fn is_of(object: &Object, organization: &str) -> bool {
    let engine = base64::engine::general_purpose::STANDARD;
    let Ok(pem) = engine.decode(object.str_at("/spec/request")) else { return false };
    let Ok(der) = CertificateSigningRequestDer::from_pem_slice(&pem) else { return false };
    let Ok((_, request)) = X509CertificationRequest::from_der(&der) else { return false };
    let subject = &request.certification_request_info.subject;
    subject.iter_organization().any(|one| one.as_str().is_ok_and(|one| one == organization))
}
