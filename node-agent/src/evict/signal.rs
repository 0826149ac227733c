//! What can run short on a node, and how much of it is left.

use std::collections::BTreeMap;

use crate::quantity;

/// Something that can run short, by the kubelet's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Memory that processes can still get.
    MemoryAvailable,
    /// Bytes left where pods' volumes and logs are.
    NodeFsAvailable,
    /// Files that can still be made there.
    NodeFsInodesFree,
    /// Bytes left where images are.
    ImageFsAvailable,
    /// Files that can still be made there.
    ImageFsInodesFree,
    /// Process ids left.
    PidAvailable,
}

/// All signals.
pub const SIGNALS: [Signal; 6] = [
    Signal::MemoryAvailable,
    Signal::NodeFsAvailable,
    Signal::NodeFsInodesFree,
    Signal::ImageFsAvailable,
    Signal::ImageFsInodesFree,
    Signal::PidAvailable,
];

/// What is told of a node that is short of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Of memory.
    Memory,
    /// Of room on a disk.
    Disk,
    /// Of process ids.
    Pid,
}

/// What is won back by ending pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Memory.
    Memory,
    /// Bytes on a disk.
    EphemeralStorage,
    /// Files on a disk.
    Inodes,
    /// Process ids.
    Pids,
}

impl Signal {
    /// Its name in flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::NodeFsAvailable => "nodefs.available",
            Self::NodeFsInodesFree => "nodefs.inodesFree",
            Self::ImageFsAvailable => "imagefs.available",
            Self::ImageFsInodesFree => "imagefs.inodesFree",
            Self::PidAvailable => "pid.available",
        }
    }

    /// The signal of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        SIGNALS.into_iter().find(|signal| signal.name() == name)
    }

    /// What the node is told to be under.
    pub fn condition(self) -> Condition {
        match self.resource() {
            Resource::Memory => Condition::Memory,
            Resource::EphemeralStorage | Resource::Inodes => Condition::Disk,
            Resource::Pids => Condition::Pid,
        }
    }

    /// What is won back.
    pub fn resource(self) -> Resource {
        match self {
            Self::MemoryAvailable => Resource::Memory,
            Self::NodeFsAvailable | Self::ImageFsAvailable => Resource::EphemeralStorage,
            Self::NodeFsInodesFree | Self::ImageFsInodesFree => Resource::Inodes,
            Self::PidAvailable => Resource::Pids,
        }
    }

    /// So much of it, as Kubernetes writes it.
    pub fn shown(self, amount: i64) -> String {
        match self.resource() {
            Resource::Memory | Resource::EphemeralStorage => quantity::binary(amount),
            Resource::Inodes | Resource::Pids => quantity::decimal(amount),
        }
    }
}

impl Condition {
    /// Its type in the node's status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pid => "PIDPressure",
        }
    }
}

impl Resource {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::EphemeralStorage => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        }
    }
}

/// How much of something is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// So much is left.
    pub available: i64,
    /// Of so much.
    pub capacity: i64,
}

/// What was observed; signals that could not be are missing.
pub type Observations = BTreeMap<Signal, Observation>;
