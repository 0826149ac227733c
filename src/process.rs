//! Other processes: which one a number means, whether it still runs, how to stop it.
//!
//! A process id is reused; with the time of its start (`/proc/PID/stat`, field 22) it is not. Nothing
//! here signals a process without having compared both.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Between two looks at a process that was told to stop.
const POLL: Duration = Duration::from_millis(20);

/// One process, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it started: clock ticks since the machine did.
    pub started_ticks: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, started_ticks) = parse_stat(&stat)?;
        (state != 'Z').then_some(Self { pid, started_ticks })
    }

    /// This process.
    pub fn current() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether it still runs. One that ended but was not waited for counts as ended.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal; one that has ended is left alone.
    pub fn signal(self, signal: Signal) -> std::io::Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(std::io::ErrorKind::InvalidInput)?;
        match kill_process(pid, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Waits until it has ended; false when it has not within `deadline`.
    pub async fn wait_gone(self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        while self.is_alive() {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }

    /// Ends it: politely, and by force when it has not ended within `patience`. Says whether force
    /// was needed.
    pub async fn stop(self, patience: Duration) -> std::io::Result<bool> {
        self.signal(Signal::TERM)?;
        if self.wait_gone(patience).await {
            return Ok(false);
        }
        self.signal(Signal::KILL)?;
        if self.wait_gone(patience).await {
            return Ok(true);
        }
        Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("process {} does not end, not even by SIGKILL", self.pid),
        ))
    }
}

/// The state (field 3) and the start time (field 22) of a `stat` line. The program's name (field 2)
/// may hold blanks and parentheses: what counts comes after the last of them.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some((state, started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_blanks_and_parentheses_does_not_confuse() {
        let line = "7 (a ) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        assert_eq!(parse_stat(line), Some(('S', 777)));
        assert_eq!(parse_stat("7 (short) S 1"), None);
    }

    #[test]
    fn the_same_number_started_at_another_time_is_another_process() {
        let me = ProcessId::current().unwrap();
        assert!(me.is_alive());
        let reused = ProcessId { started_ticks: me.started_ticks + 1, ..me };
        assert!(!reused.is_alive());
        reused.signal(Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn a_process_is_stopped_politely_and_one_that_will_not_by_force() {
        let start = |script: &str| {
            let child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
            let id = ProcessId::of(child.id()).unwrap();
            (child, id)
        };
        let (mut polite, id) = start("exec sleep 60");
        assert!(!id.stop(Duration::from_secs(5)).await.unwrap());
        polite.wait().unwrap();
        let (mut stubborn, id) = start("trap '' TERM; echo; while :; do sleep 0.05; done");
        // It must have set its trap before it is asked to end.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(id.stop(Duration::from_millis(300)).await.unwrap());
        stubborn.wait().unwrap();
    }
}
