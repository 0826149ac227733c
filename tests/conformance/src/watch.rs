//! Watches, as clients hold them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::{Buf as _, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use reqwest::Method;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::api::{Api, Refused};

/// How long the first byte may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How often one is opened again that has broken.
const REOPENED_MAX: u32 = 40;

/// An open watch.
pub struct Watch {
    api: Api,
    /// Path and query.
    target: String,
    /// The resource version of the last event.
    seen: Option<String>,
    stream: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    buffered: BytesMut,
}

impl Watch {
    pub(crate) async fn open(api: Api, target: String) -> Result<Self> {
        let stream = begin(&api, &target).await?;
        Ok(Self { api, target, seen: None, stream, buffered: BytesMut::new() })
    }

    /// The next event; `None` when the watch has ended or nothing came within `limit`.
    pub async fn next(&mut self, limit: Duration) -> Option<Value> {
        timeout(limit, self.line()).await.ok().flatten()
    }

    async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffered.iter().position(|&byte| byte == b'\n') {
                let line = self.buffered.split_to(end);
                self.buffered.advance(1);
                let event: Value = serde_json::from_slice(&line).ok()?;
                let version = event["object"]["metadata"]["resourceVersion"].as_str();
                self.seen = version.map(str::to_owned).or(self.seen.take());
                return Some(event);
            }
            match self.stream.next().await? {
                Ok(bytes) => self.buffered.extend_from_slice(&bytes),
                Err(_) => self.reopen().await?,
            }
        }
    }

    async fn reopen(&mut self) -> Option<()> {
        self.buffered.clear();
        let target = match &self.seen {
            Some(version) => resumed(&self.target, version),
            None => self.target.clone(),
        };
        for _ in 0..REOPENED_MAX {
            if let Ok(stream) = begin(&self.api, &target).await {
                self.stream = stream;
                return Some(());
            }
            sleep(Duration::from_millis(250)).await;
        }
        None
    }

    /// The next event of that type whose object `fits`.
    pub async fn expect(
        &mut self,
        kind: &str,
        limit: Duration,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut seen = Vec::new();
        let waiting = async {
            while let Some(event) = self.line().await {
                if event["type"] == kind && fits(&event["object"]) {
                    return Some(event["object"].clone());
                }
                seen.push(event["type"].as_str().unwrap_or("?").to_owned());
            }
            None
        };
        let found = timeout(limit, waiting).await.ok().flatten();
        found.with_context(|| format!("no fitting {kind} event within {limit:?}; saw {seen:?}"))
    }
}

async fn begin(
    api: &Api,
    target: &str,
) -> Result<BoxStream<'static, reqwest::Result<bytes::Bytes>>> {
    let answer = timeout(ANSWER_WITHIN, api.opened(target)).await??;
    let code = answer.status().as_u16();
    if code != 200 {
        let body = answer.json().await.unwrap_or_default();
        return Err(Refused { method: Method::GET, path: target.to_owned(), code, body }.into());
    }
    Ok(answer.bytes_stream().boxed())
}

/// The same watch from a resource version on.
fn resumed(target: &str, version: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let of_begin = ["resourceVersion=", "resourceVersionMatch=", "sendInitialEvents="];
    let kept = query.split('&').filter(|one| !of_begin.iter().any(|name| one.starts_with(name)));
    let kept: Vec<&str> = kept.collect();
    format!("{path}?{}&resourceVersion={version}", kept.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_watch_goes_on_where_it_was() {
        assert_eq!(
            resumed("/api/v1/pods?resourceVersion=3&labelSelector=a&watch=true", "7"),
            "/api/v1/pods?labelSelector=a&watch=true&resourceVersion=7"
        );
    }
}
