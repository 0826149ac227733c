//! The scenarios: which fault befalls whom in which round. Pure: the choice comes from a seed.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

/// What can be done to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Its process is killed with SIGKILL.
    Kill,
    /// Its process is told to end with SIGTERM.
    Restart,
    /// Its process stands still (SIGSTOP) for a while.
    Pause,
    /// Nothing passes between it and its peers for a while.
    Cut,
    /// Nothing that it sends reaches its peers for a while.
    CutOutgoing,
    /// Nothing that its peers send reaches it for a while.
    CutIncoming,
    /// Each of its syncs takes much longer for a while.
    SlowDisk,
    /// Its disk has no room for a while.
    FullDisk,
    /// It is killed, and bits of its files are flipped before it is started again.
    Corrupt,
    /// It is killed and loses its directory: another member takes its place.
    Replace,
}

impl FaultKind {
    /// What is done, before the name of whom.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Cut => "cut off",
            Self::CutOutgoing => "drop what is sent by",
            Self::CutIncoming => "drop what is sent to",
            Self::SlowDisk => "slow down the disk of",
            Self::FullDisk => "fill the disk of",
            Self::Corrupt => "flip bits of",
            Self::Replace => "replace",
        }
    }

    /// Whether it lasts until it is healed. The others heal by a restart.
    pub fn lasts(self) -> bool {
        matches!(
            self,
            Self::Pause
                | Self::Cut
                | Self::CutOutgoing
                | Self::CutIncoming
                | Self::SlowDisk
                | Self::FullDisk
                | Self::Corrupt
        )
    }

    /// Whether it destroys what a server keeps.
    pub fn destroys(self) -> bool {
        matches!(self, Self::Corrupt | Self::Replace)
    }

    /// Whether servers must be told apart by their addresses.
    pub fn cuts(self) -> bool {
        matches!(self, Self::Cut | Self::CutOutgoing | Self::CutIncoming)
    }
}

/// What to do, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Kill the leader.
    LeaderKill,
    /// Kill any server.
    RandomKill,
    /// Let the leader, or another server, stand still.
    Pause,
    /// Cut the leader, or another server, off from its peers.
    Partition,
    /// Cut one direction between the leader, or another server, and its peers.
    OneWay,
    /// Make the leader's syncs slow.
    SlowDisk,
    /// Fill a server's disk.
    DiskFull,
    /// Flip bits in a server's files.
    Corrupt,
    /// Restart all servers, one after the other.
    RollingRestart,
    /// Replace all servers by new members, one after the other.
    Membership,
    /// All of the above, in turn.
    All,
}

/// Whom a fault befalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Leader,
    Any,
    InTurn,
}

/// The turns of [`Scenario::All`].
const TURNS: [Scenario; 10] = [
    Scenario::LeaderKill,
    Scenario::Pause,
    Scenario::Partition,
    Scenario::OneWay,
    Scenario::RandomKill,
    Scenario::SlowDisk,
    Scenario::DiskFull,
    Scenario::Corrupt,
    Scenario::RollingRestart,
    Scenario::Membership,
];

impl Scenario {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::LeaderKill => "leader-kill",
            Self::RandomKill => "random-kill",
            Self::Pause => "pause",
            Self::Partition => "partition",
            Self::OneWay => "one-way",
            Self::SlowDisk => "slow-disk",
            Self::DiskFull => "disk-full",
            Self::Corrupt => "corrupt",
            Self::RollingRestart => "rolling-restart",
            Self::Membership => "membership",
            Self::All => "all",
        }
    }

    /// How many rounds show it, where nobody says how many.
    pub fn default_count(self) -> u32 {
        match self {
            Self::LeaderKill | Self::RandomKill => 20,
            Self::Pause | Self::Partition | Self::OneWay => 10,
            Self::SlowDisk | Self::DiskFull => 4,
            Self::Corrupt | Self::RollingRestart | Self::Membership => 6,
            Self::All => 20,
        }
    }

    /// Every fault that it may bring.
    pub fn faults(self) -> Vec<FaultKind> {
        let rounds = if self == Self::All { 2 * TURNS.len() } else { 2 };
        (0..u32::try_from(rounds).unwrap_or(u32::MAX)).map(|round| self.of(round).0).collect()
    }

    /// The fault of a round, and whom it befalls. Leader and others take turns where both matter.
    fn of(self, round: u32) -> (FaultKind, Victim) {
        let second = round % 2 == 1;
        let leader_first = if second { Victim::Any } else { Victim::Leader };
        match self {
            Self::LeaderKill => (FaultKind::Kill, Victim::Leader),
            Self::RandomKill => (FaultKind::Kill, Victim::Any),
            Self::Pause => (FaultKind::Pause, leader_first),
            Self::Partition => (FaultKind::Cut, leader_first),
            Self::OneWay if second => (FaultKind::CutIncoming, Victim::Leader),
            Self::OneWay => (FaultKind::CutOutgoing, Victim::Leader),
            Self::SlowDisk => (FaultKind::SlowDisk, Victim::Leader),
            Self::DiskFull => (FaultKind::FullDisk, leader_first),
            Self::Corrupt => (FaultKind::Corrupt, leader_first),
            Self::RollingRestart => (FaultKind::Restart, Victim::InTurn),
            Self::Membership => (FaultKind::Replace, Victim::InTurn),
            Self::All => {
                let turns = u32::try_from(TURNS.len()).unwrap_or(u32::MAX);
                TURNS[(round % turns) as usize].of(round / turns)
            }
        }
    }
}

/// Chooses by a seed.
pub struct Chooser {
    scenario: Scenario,
    random: StdRng,
}

impl Chooser {
    /// The choices of a seed.
    pub fn new(scenario: Scenario, seed: u64) -> Self {
        Self { scenario, random: StdRng::seed_from_u64(seed) }
    }

    /// The fault of round `round`, and which of `servers` servers it befalls.
    pub fn choose(&mut self, round: u32, leader: usize, servers: usize) -> (FaultKind, usize) {
        let (fault, victim) = self.scenario.of(round);
        let victim = match victim {
            Victim::Leader => leader,
            Victim::Any => self.random.random_range(0..servers),
            Victim::InTurn => round as usize % servers,
        };
        (fault, victim)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn one_seed_gives_the_same_choices_again_and_another_gives_others() {
        let choices = |seed| {
            let mut chooser = Chooser::new(Scenario::RandomKill, seed);
            (0..32).map(|round| chooser.choose(round, 0, 3).1).collect::<Vec<_>>()
        };
        assert_eq!(choices(1), choices(1));
        assert_ne!(choices(1), choices(2));
    }

    #[test]
    fn all_brings_every_fault_and_a_rolling_restart_every_server() {
        let all: HashSet<FaultKind> = Scenario::All.faults().into_iter().collect();
        for scenario in TURNS {
            assert!(scenario.faults().iter().all(|fault| all.contains(fault)), "{scenario:?}");
        }
        let mut chooser = Chooser::new(Scenario::RollingRestart, 0);
        let victims: HashSet<usize> = (0..3).map(|round| chooser.choose(round, 0, 3).1).collect();
        assert_eq!(victims.len(), 3);
    }
}
