//! The plugins, one file each.

mod balanced_allocation;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod resources_fit;
mod taint_toleration;
mod topology_spread;
mod volume_binding;
mod volume_restrictions;

pub use kontiki_node_agent::fit::affinity::{selects, takes};
pub use kontiki_node_agent::fit::taints::{covers, tolerates};

use super::framework::{Filter, Score};

/// All filters, the cheap ones first. A node is out with the first that rejects it.
pub static FILTERS: &[&dyn Filter] = &[
    &node_unschedulable::NodeUnschedulable,
    &node_name::NodeName,
    &taint_toleration::TaintToleration,
    &node_affinity::NodeAffinity,
    &node_ports::NodePorts,
    &volume_restrictions::VolumeRestrictions,
    &resources_fit::ResourcesFit,
    &volume_binding::VolumeBinding,
    &topology_spread::TopologySpread,
    &inter_pod_affinity::InterPodAffinity,
];

/// All scores.
pub static SCORES: &[&dyn Score] = &[
    &taint_toleration::TaintToleration,
    &node_affinity::NodeAffinity,
    &topology_spread::TopologySpread,
    &inter_pod_affinity::InterPodAffinity,
    &resources_fit::ResourcesFit,
    &balanced_allocation::BalancedAllocation,
    &image_locality::ImageLocality,
];
