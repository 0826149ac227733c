//! What a webhook answers, and what a refusal by it says.

use base64::Engine as _;
use serde_json::Value;

use crate::status::Status;

/// What a webhook says of a write.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    is_allowed: bool,
    status: Value,
    /// The JSON patch that it wants.
    pub(super) patch: Option<Value>,
    pub(super) warnings: Vec<String>,
    /// What it wants to be noted in the audit log.
    pub(super) annotations: Vec<(String, String)>,
}

impl Verdict {
    /// Reads the answer to a review. The error says what is wrong with it.
    pub(super) fn of(answer: &Value, uid: &str, api_version: &str) -> Result<Self, String> {
        let text =
            |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (own_version, kind) = (text("/apiVersion"), text("/kind"));
        if (own_version, kind) != (api_version, "AdmissionReview") {
            return Err(format!(
                "received invalid webhook response: expected webhook response of {api_version}, \
                 Kind=AdmissionReview, got {own_version}, Kind={kind}"
            ));
        }
        let Some(response) = answer.get("response").filter(|response| response.is_object()) else {
            return Err("received invalid webhook response: webhook response was absent".to_owned());
        };
        // The older form does not repeat the uid.
        if api_version.ends_with("/v1") && text("/response/uid") != uid {
            return Err(format!(
                "received invalid webhook response: expected response.uid={uid:?}, got {:?}",
                text("/response/uid")
            ));
        }
        let warnings = response.get("warnings").and_then(Value::as_array).into_iter().flatten();
        Ok(Self {
            is_allowed: response.get("allowed") == Some(&Value::Bool(true)),
            status: response.get("status").cloned().unwrap_or_default(),
            patch: patch(response)?,
            warnings: warnings.filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
            annotations: annotations(response),
        })
    }

    /// The refusal, if it is one, in Kubernetes' words.
    pub(super) fn check(&self, webhook: &str) -> Result<(), Status> {
        if self.is_allowed {
            return Ok(());
        }
        let text = |field: &str| self.status.get(field).and_then(Value::as_str).unwrap_or_default();
        let denied = format!("admission webhook {webhook:?} denied the request");
        let message = match (text("message"), text("reason")) {
            ("", "") => format!("{denied} without explanation"),
            ("", reason) => format!("{denied}: {reason}"),
            (message, _) => format!("{denied}: {message}"),
        };
        let code = self.status.get("code").and_then(Value::as_u64).unwrap_or_default();
        let code = u16::try_from(code).ok().filter(|code| (400..600).contains(code)).unwrap_or(400);
        Err(Status::denied(code, text("reason"), message, self.status.get("details")))
    }
}

fn annotations(response: &Value) -> Vec<(String, String)> {
    let all = response.get("auditAnnotations").and_then(Value::as_object).into_iter().flatten();
    let texts = all.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    texts.collect()
}

fn patch(response: &Value) -> Result<Option<Value>, String> {
    let text = |field: &str| response.get(field).and_then(Value::as_str).unwrap_or_default();
    let (patch, kind) = (text("patch"), text("patchType"));
    if patch.is_empty() {
        return Ok(None);
    }
    if !matches!(kind, "JSONPatch" | "") {
        return Err(format!("received invalid webhook response: unknown patchType {kind:?}"));
    }
    let engine = base64::engine::general_purpose::STANDARD;
    let bytes = engine.decode(patch).map_err(|error| format!("the patch: {error}"))?;
    let patch = serde_json::from_slice(&bytes).map_err(|error| format!("the patch: {error}"))?;
    Ok(Some(patch))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const V1: &str = "admission.k8s.io/v1";

    fn answer(response: Value) -> Value {
        json!({ "apiVersion": V1, "kind": "AdmissionReview", "response": response })
    }

    #[test]
    fn a_refusal_is_worded_as_kubernetes_does() {
        let table = [
            (json!({}), 400, "admission webhook \"w\" denied the request without explanation"),
            (
                json!({ "message": "no", "code": 403, "reason": "Forbidden" }),
                403,
                "admission webhook \"w\" denied the request: no",
            ),
            (
                json!({ "reason": "because", "code": 200 }),
                400,
                "admission webhook \"w\" denied the request: because",
            ),
        ];
        for (status, code, message) in table {
            let answer = answer(json!({ "uid": "u", "allowed": false, "status": status }));
            let refusal = Verdict::of(&answer, "u", V1).unwrap().check("w").unwrap_err();
            assert_eq!((refusal.code(), refusal.message()), (code, message));
            assert_eq!(refusal.to_value()["status"], "Failure");
        }
    }

    #[test]
    fn an_answer_to_another_request_is_none() {
        let answer = answer(json!({ "uid": "u", "allowed": true }));
        assert!(Verdict::of(&answer, "u", V1).unwrap().check("w").is_ok());
        assert!(Verdict::of(&answer, "v", V1).is_err());
        assert!(Verdict::of(&answer, "u", "admission.k8s.io/v1beta1").is_err());
        assert!(Verdict::of(&json!({}), "u", V1).is_err());
    }
}
