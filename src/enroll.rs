//! Being let into a cluster: `POST /kontiki/v1/enroll/{server,node}` with a join token.
//!
//! ```text
//!  joiner                                  any server
//!    │  TLS: the token's hash pins the CA      │
//!    ├── server: certificates ────────────────▶│ a member id never used before (R8), authorities
//!    │                                         │
//!    ├── server: join (its Raft listens) ─────▶│ learner, caught up, then voter
//!    │                                         │
//!    ├── node: two signing requests ──────────▶│ certificates of that node and no other
//! ```

use std::time::Duration;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use crate::client;
use crate::pki::{Identity, tls};
use crate::token::Token;

pub mod node;
pub mod server;

/// How long a joiner looks for a server that answers.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two rounds over all servers named.
const RETRY_EVERY: Duration = Duration::from_millis(50);
/// How long one request may take: a new member may have a snapshot to fetch.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// The servers a joiner was told of, and the token it shows them.
pub struct Door<'a> {
    servers: &'a [String],
    token: &'a Token,
    http: reqwest::Client,
}

impl<'a> Door<'a> {
    /// A door that opens to nobody but the cluster of the token; `identity` is who one has been.
    pub fn new(
        servers: &'a [String],
        token: &'a Token,
        identity: Option<&Identity>,
    ) -> anyhow::Result<Self> {
        let http = client::with_tls(tls::pinned_config(token.ca_hash, identity)?)?;
        Ok(Self { servers, token, http })
    }

    /// Knocks at one server after the other until one lets in or refuses for good.
    pub async fn knock<T: DeserializeOwned>(
        &self,
        role: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let until = Instant::now() + DEADLINE;
        loop {
            let mut last = None;
            for server in self.servers {
                match self.ask(server, role, body).await {
                    Ok(answer) => return Ok(answer),
                    Err(Knock::Refused(error)) => {
                        return Err(error.context(format!("enroll at {server}")));
                    }
                    Err(Knock::Unanswered(error)) => last = Some((server, error)),
                }
            }
            if Instant::now() >= until {
                let Some((server, error)) = last else { bail!("no server to enroll at was named") };
                return Err(error.context(format!(
                    "no server let us in within {DEADLINE:?}; the last one asked was {server}"
                )));
            }
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        server: &str,
        role: &str,
        body: &impl Serialize,
    ) -> Result<T, Knock> {
        let url = format!("{}/kontiki/v1/enroll/{role}", server.trim_end_matches('/'));
        let answer = self
            .http
            .post(url)
            .bearer_auth(self.token)
            .json(body)
            .timeout(REQUEST_DEADLINE)
            .send()
            .await
            .map_err(Knock::from_transport)?;
        let status = answer.status();
        let json = client::json_answer(answer).await;
        // 4xx is an answer for good, but for "too many requests"; 5xx may be a matter of time.
        match json {
            Ok(json) => serde_json::from_value::<T>(json)
                .context("the answer is not what this version of kontiki understands")
                .map_err(Knock::Refused),
            Err(error) if status == reqwest::StatusCode::UNAUTHORIZED => {
                Err(Knock::Refused(error.context(format!(
                    "the join token was refused: it is not this cluster's token for a {role}"
                ))))
            }
            Err(error) if status.is_client_error() && status.as_u16() != 429 => {
                Err(Knock::Refused(error))
            }
            Err(error) => Err(Knock::Unanswered(error)),
        }
    }
}

enum Knock {
    Refused(anyhow::Error),
    Unanswered(anyhow::Error),
}

impl Knock {
    fn from_transport(error: reqwest::Error) -> Self {
        let error = client::why(error);
        let text = error.to_string();
        if text.contains("certificate") {
            return Self::Refused(error.context(
                "the server is not of the cluster that the token is for: its certificate does not \
                 come from the authority that the token names",
            ));
        }
        Self::Unanswered(error)
    }
}

/// What a joiner sends, by kind.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum ServerStep {
    /// Give me an id and the authorities.
    Certificates {
        /// The joiner's name.
        name: String,
    },
    /// I listen: make me a member.
    Join(server::Joining),
    /// Am I a member still?
    Standing {
        /// The asker's cluster: another may have its servers' addresses and authorities by now.
        cluster_id: String,
        /// The asker's id.
        node_id: u64,
    },
}

/// Decodes a request; what is wrong with it is the client's mistake.
pub fn decode<T: DeserializeOwned>(body: Value) -> Result<T, String> {
    serde_json::from_value(body)
        .map_err(|error| format!("the enrollment request is malformed: {error}"))
}
