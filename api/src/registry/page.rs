//! Continue tokens: where the next page of a list begins, and at which revision all pages are read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kontiki_storage::kv::Revision;
use serde::{Deserialize, Serialize};

use crate::status::Status;

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// The revision of the first page; `None` goes on at the latest, inconsistently.
    pub(super) revision: Option<Revision>,
    /// The first key of the next page, whole.
    pub(super) start: String,
}

/// As it is written: Kubernetes' own form.
#[derive(Serialize, Deserialize)]
struct Written {
    v: String,
    rv: i64,
    start: String,
}

const VERSION: &str = "meta.k8s.io/v1";

impl Token {
    /// The text for the client; `folder` is left out of it.
    pub(super) fn encode(&self, folder: &str) -> String {
        let rv = self.revision.map_or(-1, |revision| {
            i64::try_from(revision.get()).expect("a revision must fit 63 bits")
        });
        let start = self.start.strip_prefix(folder).unwrap_or_default().to_owned();
        let written = Written { v: VERSION.into(), rv, start };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&written).expect("a token must have a text"))
    }

    /// Reads a client's text; it cannot point out of `folder`.
    pub(super) fn decode(text: &str, folder: &str) -> Result<Self, Status> {
        let invalid =
            |why: String| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|error| invalid(error.to_string()))?;
        let written: Written =
            serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        if written.v != VERSION {
            return Err(invalid(format!("version {:?} is not known", written.v)));
        }
        if written.start.is_empty() {
            return Err(invalid("start key is missing".into()));
        }
        let revision = match written.rv {
            -1 => None,
            rv => match u64::try_from(rv) {
                Ok(rv) if rv > 0 => Some(Revision::new(rv)),
                _ => return Err(invalid("incorrect encoded start resourceVersion".into())),
            },
        };
        Ok(Self { revision, start: format!("{folder}{}", written.start) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_returns_to_its_place() {
        let token = Token {
            revision: Some(Revision::new(7)),
            start: "/registry/pods/default/web-0\0".into(),
        };
        let text = token.encode("/registry/pods/default/");
        assert_eq!(Token::decode(&text, "/registry/pods/default/").expect("valid"), token);
    }

    #[test]
    fn a_token_that_is_none_is_a_bad_request() {
        for text in ["x", "!!", "e30", &URL_SAFE_NO_PAD.encode(r#"{"v":"x","rv":1,"start":"a"}"#)] {
            let refusal = Token::decode(text, "/registry/pods/").expect_err(text);
            assert_eq!(refusal.code(), 400, "{text}");
        }
    }
}
