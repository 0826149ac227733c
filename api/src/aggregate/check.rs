//! Whether the server of an APIService answers.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::HeaderMap;

use super::{Aggregation, identity};
use crate::authn::{MASTERS, User};
use crate::object::Object;
use crate::outbound::in_full;
use crate::registry::Registry;

/// How many of its endpoints are asked at once; one that answers is enough.
const ATTEMPTS: usize = 5;
/// How long each may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks for what every aggregated API server must serve: its version's document. The error says
/// why the last attempt failed.
pub(crate) async fn check(
    aggregation: &Aggregation,
    registry: &Registry,
    service: &Object,
) -> Result<(), String> {
    let attempts = (0..ATTEMPTS).map(|_| attempt(aggregation, registry, service));
    let mut attempts: FuturesUnordered<_> = attempts.collect();
    let mut last = Ok(());
    while let Some(outcome) = attempts.next().await {
        last = outcome;
        if last.is_ok() {
            break;
        }
    }
    last
}

async fn attempt(
    aggregation: &Aggregation,
    registry: &Registry,
    service: &Object,
) -> Result<(), String> {
    let (client, mut url) = aggregation.reach(registry, service).await?;
    url.set_path(&document_path(service));
    let asked = client.get(url.clone()).headers(as_aggregator()).timeout(LIMIT).send().await;
    let failed = |why: String| format!("failing or missing response from {url}: {why}");
    let answer = asked.map_err(|error| failed(in_full(&error)))?;
    if !answer.status().is_success() {
        let code = answer.status().as_u16();
        return Err(failed(format!("bad status from {url}: {code}")));
    }
    Ok(())
}

/// Where a version's document is.
pub(super) fn document_path(service: &Object) -> String {
    format!("/apis/{}/{}", service.str_at("/spec/group"), service.str_at("/spec/version"))
}

/// This server asks for itself: it may read everything that describes the others.
pub(super) fn as_aggregator() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let groups = vec![MASTERS.to_owned()];
    let user = User { name: "system:kube-aggregator".into(), groups, ..User::default() };
    identity::tell(&mut headers, &user);
    headers
}
