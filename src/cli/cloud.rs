//! The flags that say which cloud there is.

use anyhow::{Context, bail};
use clap::Args;

use crate::cloud::Choice;
use crate::cloud::grpc::Address;
use crate::cloud::pool::Pool;

/// Flags about the cloud, for the verbs that start servers.
#[derive(Debug, Args, Default)]
pub(crate) struct CloudFlags {
    /// Addresses for Services of the type LoadBalancer, on the nodes' network and otherwise unused: one
    /// of the nodes answers for each, and another where that one dies. Ranges such as
    /// 192.0.2.0/28 or 192.0.2.16-192.0.2.31, or `none`. All servers of a cluster run alike.
    #[arg(long, env = "KONTIKI_LOAD_BALANCER_POOL", value_name = "RANGES")]
    pub load_balancer_pool: Option<String>,
    /// A process that is the cloud: grpc://HOST:PORT or unix:///PATH. It serves
    /// `src/cloud/cloud.proto`.
    #[arg(
        long,
        env = "KONTIKI_CLOUD_PROVIDER",
        value_name = "ADDRESS",
        conflicts_with = "load_balancer_pool"
    )]
    pub cloud_provider: Option<String>,
    /// What the cloud tells this cluster from others by.
    #[arg(long, env = "KONTIKI_CLUSTER_NAME", value_name = "NAME", default_value = "kubernetes")]
    pub cluster_name: String,
}

impl CloudFlags {
    /// Whether they say anything of a cloud.
    pub(crate) fn are_given(&self) -> bool {
        self.load_balancer_pool.is_some() || self.cloud_provider.is_some()
    }

    /// What the flags say together.
    pub(crate) fn choice(&self) -> anyhow::Result<Choice> {
        match (&self.load_balancer_pool, &self.cloud_provider) {
            (Some(_), Some(_)) => {
                bail!("--load-balancer-pool and --cloud-provider are both given: give one of them")
            }
            (Some(none), None) if none == "none" => Ok(Choice::None),
            (Some(pool), None) => {
                Ok(Choice::BareMetal(pool.parse::<Pool>().context("--load-balancer-pool")?))
            }
            (None, Some(address)) => {
                let address = address.parse::<Address>().map_err(anyhow::Error::msg);
                Ok(Choice::OutOfProcess(address.context("--cloud-provider")?))
            }
            (None, None) => Ok(Choice::None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(pool: Option<&str>, provider: Option<&str>) -> Result<Choice, String> {
        let flags = CloudFlags {
            load_balancer_pool: pool.map(str::to_owned),
            cloud_provider: provider.map(str::to_owned),
            ..CloudFlags::default()
        };
        flags.choice().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_pool_or_a_process_makes_a_cloud_and_mistakes_are_named() {
        assert_eq!(choice(None, None), Ok(Choice::None));
        assert_eq!(choice(Some("none"), None), Ok(Choice::None));
        assert!(matches!(choice(Some("192.0.2.0/28"), None), Ok(Choice::BareMetal(_))));
        let process = choice(None, Some("grpc://127.0.0.1:7000"));
        assert!(matches!(process, Ok(Choice::OutOfProcess(_))));
        let error = choice(Some("some"), None).unwrap_err();
        assert!(error.starts_with("--load-balancer-pool: \"some\": expected IPv4"), "{error}");
        let error = choice(None, Some("aws")).unwrap_err();
        assert!(error.starts_with("--cloud-provider: \"aws\": expected grpc://"), "{error}");
        let error = choice(Some("192.0.2.1"), Some("grpc://a:1")).unwrap_err();
        assert!(error.contains("give one of them"), "{error}");
    }
}
