//! [`Query`]: the part of the address behind the question mark.

use std::time::Duration;

use http::Uri;

use crate::registry::options::{Freshness, ListOptions, Propagation};
use crate::registry::watch::WatchStart;
use crate::status::{FieldError, Status};

/// The parameters of a request in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// The parameters of an address. What cannot be decoded is left out.
    pub fn of(uri: &Uri) -> Self {
        axum::extract::Query::try_from_uri(uri).map(|query| Self(query.0)).unwrap_or_default()
    }

    /// The first value of a parameter; empty where there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }

    /// All values of a parameter.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect()
    }

    /// All parameters.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// Whether a parameter is there.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(own, _)| own == name)
    }

    /// Whether a boolean is true; one without a value is, as in Go.
    pub fn is_true(&self, name: &str) -> bool {
        self.has(name) && !matches!(self.get(name), "0" | "f" | "F" | "false" | "FALSE" | "False")
    }

    /// A number.
    pub fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!(
                    "strconv.ParseInt: parsing {text:?}: invalid syntax in query parameter {name}"
                ))
            }),
        }
    }

    /// Whether everything is to be tried and nothing done.
    pub fn is_dry_run(&self) -> Result<bool, Status> {
        check_dry_run(&self.all("dryRun"))
    }

    /// The resourceVersion that a read is about.
    pub fn freshness(&self) -> Result<Freshness, Status> {
        let exact = self.get("resourceVersionMatch");
        let version = self.version()?;
        match (exact, version) {
            ("", None) => Ok(Freshness::Latest),
            ("" | "NotOlderThan", Some(0)) => Ok(Freshness::Any),
            // A page of a list without a match is of exactly that revision, as etcd gave it.
            ("", Some(version)) if self.limit()? > 0 => Ok(Freshness::Exact(version)),
            ("" | "NotOlderThan", Some(version)) => Ok(Freshness::NotOlderThan(version)),
            ("Exact", Some(0)) => Err(invalid(FieldError::forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ))),
            ("Exact", Some(version)) => Ok(Freshness::Exact(version)),
            ("Exact" | "NotOlderThan", None) => Err(invalid(FieldError::forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ))),
            (other, _) => Err(invalid(FieldError::not_supported(
                "resourceVersionMatch",
                other,
                &["Exact", "NotOlderThan", ""],
            ))),
        }
    }

    /// What to list.
    pub fn list(&self) -> Result<ListOptions, Status> {
        if self.has("sendInitialEvents") {
            return Err(invalid(FieldError::forbidden(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            )));
        }
        let continue_token = self.get("continue").to_owned();
        if !continue_token.is_empty() && self.has("resourceVersionMatch") {
            return Err(invalid(FieldError::forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden when continue is provided",
            )));
        }
        Ok(ListOptions {
            label_selector: self.get("labelSelector").to_owned(),
            field_selector: self.get("fieldSelector").to_owned(),
            limit: self.limit()?,
            continue_token,
            freshness: self.freshness()?,
        })
    }

    /// Where a watch begins.
    pub fn watch_start(&self) -> Result<WatchStart, Status> {
        let version = self.version()?;
        let freshness = match version {
            None => Freshness::Latest,
            Some(0) => Freshness::Any,
            Some(version) => Freshness::NotOlderThan(version),
        };
        let matching = self.get("resourceVersionMatch");
        if !self.has("sendInitialEvents") {
            if !matching.is_empty() {
                return Err(invalid(FieldError::forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is \
                     provided",
                )));
            }
            return Ok(match freshness {
                Freshness::NotOlderThan(version) => WatchStart::After(version),
                other => WatchStart::State(other),
            });
        }
        if matching != "NotOlderThan" {
            return Err(invalid(FieldError::forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            )));
        }
        if self.is_true("sendInitialEvents") {
            return Ok(WatchStart::MarkedState(freshness));
        }
        Ok(match freshness {
            Freshness::NotOlderThan(version) => WatchStart::After(version),
            _ => WatchStart::Now,
        })
    }

    /// After what time a watch ends.
    pub fn timeout(&self) -> Result<Option<Duration>, Status> {
        let seconds = self.number("timeoutSeconds")?;
        Ok(seconds.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0).map(Duration::from_secs))
    }

    /// What becomes of the dependents; `None` where nothing is said.
    pub fn propagation(&self) -> Result<Option<Propagation>, Status> {
        let orphan = self.has("orphanDependents").then(|| self.is_true("orphanDependents"));
        propagation(self.get("propagationPolicy"), orphan)
    }

    fn limit(&self) -> Result<u64, Status> {
        let limit = self.number("limit")?.unwrap_or(0);
        u64::try_from(limit).map_err(|_| {
            invalid(FieldError::invalid("limit", limit, "must be greater than or equal to 0"))
        })
    }

    fn version(&self) -> Result<Option<u64>, Status> {
        match self.get("resourceVersion") {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
                invalid(FieldError::invalid("resourceVersion", text, why))
            }),
        }
    }
}

/// Reads `dryRun`, of which only `All` is known.
pub fn check_dry_run(values: &[&str]) -> Result<bool, Status> {
    match values {
        [] => Ok(false),
        _ if values.iter().all(|value| *value == "All") => Ok(true),
        _ => Err(Status::invalid(
            "meta.k8s.io",
            "CreateOptions",
            "",
            &[FieldError::not_supported("dryRun", serde_json::json!(values), &["All"])],
        )),
    }
}

/// Reads `propagationPolicy` and its elder, `orphanDependents`.
pub fn propagation(policy: &str, orphan: Option<bool>) -> Result<Option<Propagation>, Status> {
    let refuse = |error| Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &[error]));
    match (policy, orphan) {
        ("", None) => Ok(None),
        ("Orphan", None) | ("", Some(true)) => Ok(Some(Propagation::Orphan)),
        ("Background", None) | ("", Some(false)) => Ok(Some(Propagation::Background)),
        ("Foreground", None) => Ok(Some(Propagation::Foreground)),
        (_, Some(_)) => refuse(FieldError::invalid(
            "propagationPolicy",
            policy,
            "orphanDependents and deletionPropagation cannot be both set",
        )),
        (other, None) => refuse(FieldError::not_supported(
            "propagationPolicy",
            other,
            &["Foreground", "Background", "Orphan", "nil"],
        )),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is made where it is passed")]
fn invalid(error: FieldError) -> Status {
    Status::invalid("meta.k8s.io", "ListOptions", "", &[error])
}
