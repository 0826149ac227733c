//! The parts of a server that its configuration may do without.

use std::sync::Arc;

use kontiki_storage::kv::Kv;

use super::{ApiConfig, Surface};
use crate::aggregate::Aggregation;
use crate::aggregate::trust::{self, Trust};
use crate::client::Client;
use crate::informer::Informers;
use crate::outbound::Credentials;
use crate::registry::Registry;
use crate::resources;
use crate::sealed::SealedKv;

/// The store, and the sealed one in front of it where anything is to be sealed.
pub(super) fn seal(kv: Arc<dyn Kv>, config: &ApiConfig) -> (Arc<dyn Kv>, Option<Arc<SealedKv>>) {
    let Some(secret) = config.secret.as_ref().filter(|_| !config.sealed_resources.is_empty())
    else {
        return (kv, None);
    };
    let resources = &config.sealed_resources;
    let sealed = Arc::new(SealedKv::new(kv, &secret.0, resources, resources::KINDS));
    (Arc::clone(&sealed) as Arc<dyn Kv>, Some(sealed))
}

/// The versions that others serve, followed from now on.
pub(super) fn aggregate(
    informers: &Informers,
    registry: &Arc<Registry>,
    config: &ApiConfig,
) -> Arc<Aggregation> {
    let own = config
        .front_proxy
        .as_ref()
        .map(|own| Credentials { cert_pem: own.cert_pem.clone(), key_pem: own.key_pem.clone() });
    let aggregation = Arc::new(Aggregation::new(informers, own));
    if config.surface == Surface::Whole {
        let (followed, registry) = (Arc::clone(&aggregation), Arc::clone(registry));
        informers.attend(|stop| followed.follow(registry, stop));
    }
    aggregation
}

/// Keeps the ConfigMap by which aggregated API servers believe this one.
pub(super) fn tell_whom_to_believe(informers: &Informers, client: &Client, config: &ApiConfig) {
    let (Some(own), Some(client_ca_pem)) = (&config.front_proxy, &config.client_ca_pem) else {
        return;
    };
    if config.surface != Surface::Whole {
        return;
    }
    let trust = Trust {
        client_ca_pem: client_ca_pem.clone(),
        proxy_ca_pem: own.ca_pem.clone(),
        proxy_name: own.name.clone(),
    };
    let client = client.clone();
    informers.attend(|stop| trust::keep(client, trust, stop));
}
