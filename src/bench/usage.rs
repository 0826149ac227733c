//! What processes have cost the machine, from `/proc`.

use std::time::Duration;

/// What some processes have used so far, together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on a core, in user and system mode.
    pub cpu: Duration,
    /// The largest resident memory of any one of them, in bytes.
    pub resident_bytes_max: u64,
}

impl Usage {
    /// Of the processes with these ids; one that is gone counts for nothing.
    pub fn of(pids: &[u32]) -> Self {
        pids.iter().filter_map(|pid| Self::of_one(*pid)).fold(Self::default(), |all, one| Self {
            cpu: all.cpu + one.cpu,
            resident_bytes_max: all.resident_bytes_max.max(one.resident_bytes_max),
        })
    }

    fn of_one(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (ticks, pages) = parse_stat(&stat)?;
        let second = rustix::param::clock_ticks_per_second().max(1);
        let nanos = ticks.saturating_mul(1_000_000_000 / second);
        let page = u64::try_from(rustix::param::page_size()).ok()?;
        Some(Self { cpu: Duration::from_nanos(nanos), resident_bytes_max: pages * page })
    }
}

/// User and system time in clock ticks (fields 14 and 15) and resident pages (field 24) of a `stat`
/// line, counted from behind the program's name, which may hold blanks and parentheses.
fn parse_stat(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let number = |field: usize| -> Option<u64> { fields.get(field - 3)?.parse().ok() };
    Some((number(14)? + number(15)?, number(24)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_memory_are_found_behind_any_name() {
        let line = "7 (a ) b) S 4 5 6 7 8 9 10 11 12 13 140 15 16 17 18 19 20 21 22 23 24 25";
        assert_eq!(parse_stat(line), Some((155, 24)));
        assert_eq!(parse_stat("7 (short) S 1"), None);
    }

    #[test]
    fn work_of_this_process_is_counted_and_one_that_is_gone_is_not() {
        let me = [std::process::id()];
        let before = Usage::of(&me);
        let mut sum = 0_u64;
        while Usage::of(&me).cpu == before.cpu {
            sum = (0..100_000).fold(sum, u64::wrapping_add);
        }
        assert!(before.resident_bytes_max > 0, "{sum}");
        assert_eq!(Usage::of(&[u32::MAX]), Usage::default());
    }
}
