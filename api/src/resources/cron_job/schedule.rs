//! [`Schedule`]: at which moments a cron job begins, in the five fields of cron or as `@daily` and
//! `@every 1h`.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// How far ahead a moment is looked for: the thirtieth of February never comes.
const YEARS_AHEAD: i16 = 5;

/// At which moments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// When minute, hour, day, month and weekday all fit.
    Fields(Box<Fields>),
    /// Again and again after this time, in whole seconds.
    Every(SignedDuration),
}

/// The numbers that fit, a bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether the days, or the weekdays, were left open: then only the others count.
    is_day_open: bool,
    is_weekday_open: bool,
}

impl Schedule {
    /// Reads a schedule.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(named) = text.strip_prefix('@') else { return parse_fields(text) };
        let fields = match named {
            "yearly" | "annually" => "0 0 1 1 *",
            "monthly" => "0 0 1 * *",
            "weekly" => "0 0 * * 0",
            "daily" | "midnight" => "0 0 * * *",
            "hourly" => "0 * * * *",
            _ => {
                let every = named.strip_prefix("every ").and_then(|every| every.parse().ok());
                let every: SignedDuration =
                    every.ok_or_else(|| format!("unrecognized descriptor: {text}"))?;
                return Ok(Self::Every(SignedDuration::from_secs(every.as_secs().max(1))));
            }
        };
        parse_fields(fields)
    }

    /// The first moment after `after`, as clocks in `zone` show it. A moment that a clock leaves out
    /// is left out; one that it shows twice comes twice.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(every) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(*every).ok()
            }
            Self::Fields(fields) => fields.next_after(after, zone),
        }
    }

    /// The last moment after `after` and up to `upto`.
    pub fn latest(&self, after: Timestamp, upto: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if let Self::Every(every) = self {
            let count = upto.duration_since(after).as_secs() / every.as_secs();
            let whole = Timestamp::from_second(after.as_second()).ok()?;
            let count = i32::try_from(count).ok().filter(|count| *count > 0)?;
            return whole.checked_add(every.checked_mul(count)?).ok();
        }
        // Looked for in ever longer times before `upto`, so that a schedule of each minute is not
        // followed through a year.
        for hours in [1, 24, 24 * 31, 24 * 366, 24 * 366 * 9] {
            let begin = upto.checked_sub(SignedDuration::from_hours(hours)).unwrap_or(after);
            let mut latest = None;
            let mut next = self.next_after(begin.max(after), zone);
            while let Some(found) = next.filter(|found| *found <= upto) {
                latest = Some(found);
                next = self.next_after(found, zone);
            }
            if latest.is_some() || begin <= after {
                return latest;
            }
        }
        None
    }
}

impl Fields {
    fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let minute = after.as_second().div_euclid(60).checked_add(1)?;
        let mut here = Timestamp::from_second(minute * 60).ok()?.to_zoned(zone.clone());
        let last_year = here.year().saturating_add(YEARS_AHEAD);
        while here.year() <= last_year {
            if !(has(self.months, here.month()) && self.is_day(&here)) {
                here = here.tomorrow().ok()?.start_of_day().ok()?;
            } else if !has(self.hours, here.hour()) {
                let left = SignedDuration::from_mins(60 - i64::from(here.minute()));
                here = here.checked_add(left).ok()?;
            } else if !has(self.minutes, here.minute()) {
                here = here.checked_add(SignedDuration::from_mins(1)).ok()?;
            } else {
                return Some(here.timestamp());
            }
        }
        None
    }

    fn is_day(&self, here: &Zoned) -> bool {
        let day = has(self.days, here.day());
        let weekday = has(self.weekdays, here.weekday().to_sunday_zero_offset());
        if self.is_day_open || self.is_weekday_open { day && weekday } else { day || weekday }
    }
}

fn has(bits: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| bits & (1 << number) != 0)
}

fn parse_fields(text: &str) -> Result<Schedule, String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let &[minute, hour, day, month, weekday] = fields.as_slice() else {
        let found = fields.join(" ");
        return Err(format!("expected exactly 5 fields, found {}: [{found}]", fields.len()));
    };
    let (minutes, _) = parse_field(minute, 0, 59, &[])?;
    let (hours, _) = parse_field(hour, 0, 23, &[])?;
    let (days, is_day_open) = parse_field(day, 1, 31, &[])?;
    let (months, _) = parse_field(month, 1, 12, &MONTHS)?;
    let (weekdays, is_weekday_open) = parse_field(weekday, 0, 6, &DAYS)?;
    Ok(Schedule::Fields(Box::new(Fields {
        minutes,
        hours,
        days,
        months,
        weekdays,
        is_day_open,
        is_weekday_open,
    })))
}

/// The numbers of a field, and whether it was left open.
fn parse_field(text: &str, low: u32, high: u32, words: &[&str]) -> Result<(u64, bool), String> {
    let mut all = (0, false);
    for part in text.split(',') {
        let (bits, is_open) = parse_part(part, low, high, words)?;
        all = (all.0 | bits, all.1 || is_open);
    }
    Ok(all)
}

/// `*`, `3`, `1-5`, `mon-fri`, any of them with `/step`; `3/5` goes on to the end.
fn parse_part(part: &str, low: u32, high: u32, words: &[&str]) -> Result<(u64, bool), String> {
    let (range, step) = part.split_once('/').map_or((part, None), |(r, s)| (r, Some(s)));
    let step = match step.map(|step| (step, step.parse::<u32>())) {
        None => None,
        Some((_, Ok(0))) => {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        Some((_, Ok(step))) => Some(step),
        Some((step, Err(_))) => return Err(format!("failed to parse int from {step}: {part}")),
    };
    if ["*", "?"].contains(&range) {
        return Ok((bits(low, high, step.unwrap_or(1)), step.is_none_or(|step| step == 1)));
    }
    let number = |text: &str| -> Result<u32, String> {
        let word = text.to_lowercase();
        match (0_u32..).zip(words).find(|(_, name)| **name == word) {
            Some((index, _)) => Ok(index + low),
            None => text.parse().map_err(|_| format!("failed to parse int from {text}: {part}")),
        }
    };
    let is_single = !range.contains('-');
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (number(first)?, number(last)?);
    if first < low {
        return Err(format!("beginning of range ({first}) below minimum ({low}): {part}"));
    }
    if last > high {
        return Err(format!("end of range ({last}) above maximum ({high}): {part}"));
    }
    if first > last {
        return Err(format!("beginning of range ({first}) beyond end of range ({last}): {part}"));
    }
    let last = if is_single && step.is_some() { high } else { last };
    Ok((bits(first, last, step.unwrap_or(1)), false))
}

fn bits(first: u32, last: u32, step: u32) -> u64 {
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    (first..=last).step_by(step).fold(0, |bits, number| bits | 1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_cron_reads_them() {
        for good in ["* * * * *", "*/5 0-6,12 1 jan-mar mon", "@daily", "@every 1h30m", "0 0 ? * 6"]
        {
            assert!(Schedule::parse(good).is_ok(), "{good}");
        }
        for (bad, expected) in [
            ("x", "expected exactly 5 fields, found 1: [x]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("a * * * *", "failed to parse int from a: a"),
            ("@often", "unrecognized descriptor: @often"),
        ] {
            assert_eq!(Schedule::parse(bad), Err(expected.to_owned()), "{bad}");
        }
    }

    fn next(schedule: &str, zone: &str, after: &str) -> Option<String> {
        let zone = TimeZone::get(zone).unwrap();
        let after = after.parse().unwrap();
        Schedule::parse(schedule).unwrap().next_after(after, &zone).map(|at| at.to_string())
    }

    #[test]
    fn the_next_moment_is_the_first_that_fits() {
        for (schedule, after, expected) in [
            ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
            ("* * * * *", "2026-01-01T00:00:59Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-01-01T00:46:00Z", "2026-01-01T01:00:00Z"),
            ("7/20 * * * *", "2026-01-01T00:10:00Z", "2026-01-01T00:27:00Z"),
            ("30 4 1,15 * *", "2026-01-01T04:30:00Z", "2026-01-15T04:30:00Z"),
            // Both a day and a weekday: either will do.
            ("0 0 13 * fri", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 13 * *", "2026-01-01T00:00:00Z", "2026-01-13T00:00:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@every 90m", "2026-01-01T00:00:07Z", "2026-01-01T01:30:07Z"),
        ] {
            assert_eq!(next(schedule, "UTC", after).as_deref(), Some(expected), "{schedule}");
        }
        assert_eq!(next("0 0 30 2 *", "UTC", "2026-01-01T00:00:00Z"), None);
    }

    #[test]
    fn clocks_that_are_set_leave_moments_out_or_show_them_twice() {
        let berlin = |after: &str| next("30 2 * * *", "Europe/Berlin", after).unwrap();
        assert_eq!(berlin("2026-03-27T12:00:00Z"), "2026-03-28T01:30:00Z");
        // On the 29th there is no half past two.
        assert_eq!(berlin("2026-03-28T12:00:00Z"), "2026-03-30T00:30:00Z");
        // On the 25th of October there are two.
        assert_eq!(berlin("2026-10-24T12:00:00Z"), "2026-10-25T00:30:00Z");
        assert_eq!(berlin("2026-10-25T00:30:00Z"), "2026-10-25T01:30:00Z");
        assert_eq!(berlin("2026-10-25T01:30:00Z"), "2026-10-26T01:30:00Z");
    }

    #[test]
    fn the_latest_moment_is_found_however_long_ago_the_last_was() {
        let latest = |schedule: &str, after: &str, upto: &str| {
            let schedule = Schedule::parse(schedule).unwrap();
            let latest =
                schedule.latest(after.parse().unwrap(), upto.parse().unwrap(), &TimeZone::UTC);
            latest.map(|at| at.to_string())
        };
        for (schedule, after, upto, expected) in [
            (
                "* * * * *",
                "2020-01-01T00:00:00Z",
                "2026-01-01T00:00:30Z",
                Some("2026-01-01T00:00:00Z"),
            ),
            (
                "@yearly",
                "2020-01-01T00:00:00Z",
                "2026-07-01T00:00:00Z",
                Some("2026-01-01T00:00:00Z"),
            ),
            ("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T00:59:59Z", None),
            (
                "@hourly",
                "2026-01-01T00:00:00Z",
                "2026-01-01T01:00:00Z",
                Some("2026-01-01T01:00:00Z"),
            ),
            (
                "@every 1h",
                "2026-01-01T00:00:10Z",
                "2026-01-01T05:30:00Z",
                Some("2026-01-01T05:00:10Z"),
            ),
        ] {
            assert_eq!(latest(schedule, after, upto).as_deref(), expected, "{schedule}");
        }
    }
}
