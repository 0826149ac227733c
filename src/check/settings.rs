//! What only the command line of the servers says.

use super::target::Target;
use super::{Finding, Item, Verdict};

const NO_TOKEN_FILE: Item = Item { id: "1.2.2", title: "No file of tokens is configured" };
const EXTERNAL_IPS: Item = Item { id: "1.2.3", title: "DenyServiceExternalIPs is enabled" };
const EVENT_RATE: Item = Item { id: "1.2.9", title: "EventRateLimit is enabled" };
const ALWAYS_PULL: Item = Item { id: "1.2.11", title: "AlwaysPullImages is enabled" };
const AUDIT_LOG: Item = Item { id: "1.2.16", title: "An audit log is written" };
const AUDIT_AGE: Item = Item { id: "1.2.17", title: "Audit logs are kept for 30 days" };
const AUDIT_BACKUPS: Item = Item { id: "1.2.18", title: "10 old audit logs are kept" };
const AUDIT_SIZE: Item = Item { id: "1.2.19", title: "Audit logs are rotated at 100 MB" };
const AUDIT_POLICY: Item = Item { id: "3.2.1", title: "There is an audit policy" };

/// Reads the command lines of all servers.
pub(super) fn check(target: &Target) -> Vec<Finding> {
    let commands: Vec<&[String]> =
        target.file.servers.iter().map(|server| server.command.as_slice()).collect();
    let token_files = values(&commands, "--token-auth-file");
    let mut findings =
        vec![NO_TOKEN_FILE.judge(token_files.iter().all(Option::is_none), said(&token_files))];
    for (item, plugin) in [
        (EXTERNAL_IPS, "DenyServiceExternalIPs"),
        (EVENT_RATE, "EventRateLimit"),
        (ALWAYS_PULL, "AlwaysPullImages"),
    ] {
        findings.push(plugin_enabled(item, plugin, &commands));
    }
    for (item, flag, least) in [
        (AUDIT_LOG, "--audit-log-path", None),
        (AUDIT_AGE, "--audit-log-maxage", Some(30)),
        (AUDIT_BACKUPS, "--audit-log-maxbackup", Some(10)),
        (AUDIT_SIZE, "--audit-log-maxsize", Some(100)),
        (AUDIT_POLICY, "--audit-policy-file", None),
    ] {
        findings.push(configured(item, flag, least, &commands));
    }
    findings
}

/// What each server is told by a flag: `--flag value` or `--flag=value`, the last one.
fn values(commands: &[&[String]], flag: &str) -> Vec<Option<String>> {
    commands.iter().map(|command| value(command, flag)).collect()
}

fn value(command: &[String], flag: &str) -> Option<String> {
    let mut found = None;
    for (index, argument) in command.iter().enumerate() {
        if argument == flag {
            found = command.get(index + 1).cloned();
        } else if let Some(value) = argument.strip_prefix(flag).and_then(|v| v.strip_prefix('=')) {
            found = Some(value.to_owned());
        }
    }
    found
}

fn said(values: &[Option<String>]) -> String {
    match values.iter().flatten().next() {
        Some(value) => format!("set to {value}"),
        None => "not set on any server".to_owned(),
    }
}

/// A plugin that is off by default: on or off is the operator's choice.
fn plugin_enabled(item: Item, plugin: &str, commands: &[&[String]]) -> Finding {
    let flag = "--enable-admission-plugins";
    let all = values(commands, flag);
    let is_on = |value: &Option<String>| {
        value.iter().flat_map(|list| list.split(',')).any(|one| one.trim() == plugin)
    };
    if all.iter().all(is_on) {
        return item.found(Verdict::Pass, format!("{flag} names it on all servers"));
    }
    item.found(Verdict::Warn, format!("{flag} does not name it on all servers"))
}

/// Something that must be configured, to at least so much where it is a number.
fn configured(item: Item, flag: &str, least: Option<u64>, commands: &[&[String]]) -> Finding {
    let all = values(commands, flag);
    let is_enough = |value: &Option<String>| match (value, least) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(value), Some(least)) => value.parse::<u64>().is_ok_and(|value| value >= least),
    };
    item.judge(all.iter().all(is_enough), format!("{flag} {}", said(&all)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_flag_is_read_in_both_forms_and_on_all_servers() {
        let first =
            command("server --audit-log-maxage 30 --enable-admission-plugins=A,EventRateLimit");
        let second =
            command("server --audit-log-maxage=29 --enable-admission-plugins EventRateLimit");
        let both: [&[String]; 2] = [&first, &second];
        let verdict = |commands: &[&[String]]| {
            configured(AUDIT_AGE, "--audit-log-maxage", Some(30), commands).verdict
        };
        assert_eq!(verdict(&both), Verdict::Fail, "one server keeps too little");
        assert_eq!(verdict(&both[..1]), Verdict::Pass);
        assert_eq!(plugin_enabled(EVENT_RATE, "EventRateLimit", &both).verdict, Verdict::Pass);
        assert_eq!(plugin_enabled(ALWAYS_PULL, "AlwaysPullImages", &both).verdict, Verdict::Warn);
    }
}
