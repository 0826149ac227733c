//! Requests from within the process, for paths that somebody else may serve.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use http::{Request, StatusCode};
use reqwest::Url;
use serde_json::Value;
use tower::ServiceExt as _;

use super::ApiServer;
use crate::authn::User;
use crate::status::Status;

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

impl ApiServer {
    /// GET of the path of these segments, as a service account that may or may not.
    pub async fn get_as(
        &self,
        (namespace, account): (&str, &str),
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value, Status> {
        let user = Arc::new(User::service_account(namespace, account));
        let request = Request::get(uri(path, query)).extension(user).body(Body::empty());
        let request = request.map_err(Status::internal)?;
        let Ok(response) = self.router().oneshot(request).await;
        let code = response.status();
        let text = to_bytes(response.into_body(), ANSWER_BYTES_MAX).await;
        let text = text.map_err(Status::internal)?;
        let answer = serde_json::from_slice::<Value>(&text);
        if code.is_success() {
            return answer.map_err(Status::internal);
        }
        if code == StatusCode::NOT_FOUND && answer.is_err() {
            return Err(Status::no_such_path());
        }
        let message = answer.ok().and_then(|refusal| Some(refusal["message"].as_str()?.to_owned()));
        let message = message.unwrap_or_else(|| String::from_utf8_lossy(&text).trim().to_owned());
        Err(Status::foreign(code.as_u16(), message))
    }
}

/// Path and query, with what is special in them escaped.
fn uri(path: &[&str], query: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://in-process/").expect("a literal URL must be one");
    url.path_segments_mut().expect("a URL of http must take a path").clear().extend(path);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_special_in_paths_and_queries_is_escaped() {
        let uri = uri(&["apis", "a b", "*"], &[("labelSelector", "a in (b,c)")]);
        assert_eq!(uri, "/apis/a%20b/*?labelSelector=a+in+%28b%2Cc%29");
    }
}
