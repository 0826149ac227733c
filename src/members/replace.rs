//! `kontiki member replace`: the dead one goes, a new one learns and votes.
//!
//! The newcomer has the address of the one whose place it takes, so that one must be out of the
//! cluster first: a message for the dead must never reach the new. No quorum is lost by that which
//! was not lost already, and the leader refuses it where one would be.

use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, sleep};

use super::access::Access;
use super::view::{Row, View};
use super::{MemberChange, rebuild};
use crate::cluster_file::{ClusterFile, ServerEntry};

/// Between two looks at the newcomer.
const POLL: Duration = Duration::from_millis(200);
/// How long `kontiki up` may take to start a server again: it waits longer for one that fails again
/// and again.
const STARTED_WITHIN: Duration = Duration::from_secs(45);

/// What is to be done for a member to be replaced.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// It is a server of `up` here: take it out, where it is in, and start it anew.
    Rebuild { remove: Option<u64> },
    /// Somebody must start a server of its name, which takes its place as it joins.
    AwaitJoin,
}

fn plan(row: Option<&Row>, is_ours: bool, view: &View) -> anyhow::Result<Plan> {
    match (row, is_ours) {
        (row, true) => Ok(Plan::Rebuild { remove: row.map(|row| row.id) }),
        (Some(row), false) if row.state == "running" => bail!(
            "{} runs: stop its process first; what is told to leave a cluster while it lives may \
             be needed yet",
            row.name
        ),
        (Some(row), false) => check_others(row, view).map(|()| Plan::AwaitJoin),
        (None, false) => bail!("there is no member of that name: see `kontiki member list`"),
    }
}

/// Without the dead one, the others must be able to agree on taking in another.
fn check_others(dead: &Row, view: &View) -> anyhow::Result<()> {
    let voters = || view.members.iter().filter(|row| row.role == "voter");
    let others = || voters().filter(|row| row.id != dead.id && row.state == "running");
    let needed = voters().count() / 2 + 1;
    if others().count() >= needed {
        return Ok(());
    }
    bail!(
        "{} of {} voters answer, and {needed} are needed to change the members: start the others \
         again, or, where they are lost for good, see `kontiki member recover`",
        others().count(),
        voters().count()
    )
}

/// Replaces the member of that name or number, and returns what came of it.
pub async fn run(
    access: &Access,
    who: &str,
    deadline: Duration,
    tell: &dyn Fn(&str),
) -> anyhow::Result<String> {
    let view = access.look().await?;
    let row = row_of(&view, who, ours(access.up.as_ref(), who).is_some())?;
    let name = row.map_or(who, |row| row.name.as_str());
    let entry = ours(access.up.as_ref(), name);
    match plan(row, entry.is_some(), &view)? {
        Plan::Rebuild { remove } => {
            let entry = entry.context("a server of `kontiki up` must be in cluster.json")?;
            if let Some(id) = remove {
                access.change(&view, &MemberChange::Remove { id }).await?;
                tell(&format!("member {id} ({name}) is out of the cluster"));
            }
            rebuild::empty(&access.data_dir, &entry.name).await?;
            tell(&format!("{name} is stopped, and {} is empty", entry.data_dir.display()));
        }
        Plan::AwaitJoin => tell(&join_command(access, &view, name)),
    }
    let known = view.members.iter().map(|row| row.id).max().unwrap_or(0);
    let id = await_voter(access, name, known, deadline, tell).await?;
    Ok(format!("{name} is replaced: member {id} votes"))
}

/// The member that is meant; `None` is a server of `up` that the cluster does not count any more.
fn row_of<'a>(view: &'a View, who: &str, is_ours: bool) -> anyhow::Result<Option<&'a Row>> {
    match view.find(who) {
        Ok(row) => Ok(Some(row)),
        // Where several have the name nobody knows which one the server is: it keeps what it has.
        Err(_) if is_ours && view.members.iter().all(|row| row.name != who) => Ok(None),
        Err(error) => Err(error),
    }
}

fn ours<'a>(up: Option<&'a ClusterFile>, name: &str) -> Option<&'a ServerEntry> {
    up?.servers.iter().find(|server| server.name == name)
}

/// How a server is started that enters the cluster.
pub fn join_command(access: &Access, view: &View, name: &str) -> String {
    let token = match &access.token_file {
        Some(path) => path.display().to_string(),
        None => "FILE (a copy of DATA-DIR/server-token of any server)".to_owned(),
    };
    let joins: Vec<String> = view.answering().iter().map(|api| format!("--join {api}")).collect();
    format!(
        "start the new server, with an empty data directory:\n  kontiki server --name {name} \
         --data-dir DIR {} --token-file {token}",
        joins.join(" ")
    )
}

/// Follows the member `name` with a number above `known` until it votes, and tells how far it is.
async fn await_voter(
    access: &Access,
    name: &str,
    known: u64,
    deadline: Duration,
    tell: &dyn Fn(&str),
) -> anyhow::Result<u64> {
    let begun = Instant::now();
    let bar = progress();
    let mut told = false;
    loop {
        // The leader may change meanwhile: who answers next knows more.
        if let Ok(view) = access.look().await {
            let newcomer = view.members.iter().find(|row| row.name == name && row.id > known);
            match newcomer {
                Some(row) if row.role == "voter" && row.state == "running" => {
                    bar.finish_and_clear();
                    return Ok(row.id);
                }
                Some(row) => {
                    if !told {
                        bar.suspend(|| tell(&format!("member {} ({name}) learns", row.id)));
                        told = true;
                    }
                    bar.set_length(view.last_log_index);
                    bar.set_position(row.applied.unwrap_or(0));
                }
                None if access.up.is_some() && begun.elapsed() >= STARTED_WITHIN => bail!(
                    "nobody has started {name} again within {STARTED_WITHIN:?}: does `kontiki up` \
                     still run, and without --no-restart?"
                ),
                None => {}
            }
        }
        if begun.elapsed() >= deadline {
            bail!("{name} does not vote yet after {deadline:?}; it goes on by itself");
        }
        sleep(POLL).await;
    }
}

/// Drawn in a terminal only.
fn progress() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} log entry {pos} of {len} {elapsed}") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u64, role: &str, state: &'static str) -> Row {
        Row {
            id,
            name: format!("s{id}"),
            role: role.into(),
            leads: false,
            raft: String::new(),
            api: format!("https://h:{id}"),
            applied: None,
            lag: None,
            revision: None,
            answered_in_ms: None,
            state,
            error: None,
        }
    }

    fn view(states: &[&'static str]) -> View {
        let rows = (1..).zip(states).map(|(id, state)| row(id, "voter", state));
        View {
            cluster_id: "c".into(),
            term: 1,
            leader: None,
            last_log_index: 0,
            members: rows.collect(),
        }
    }

    #[test]
    fn of_several_members_with_the_name_of_a_server_of_up_none_is_taken_for_gone() {
        let mut view = view(&["running", "failed", "running"]);
        view.members[0].name = "s2".into();
        let refused = row_of(&view, "s2", true).unwrap_err();
        assert!(refused.to_string().contains("say which by its number: 1, 2"), "{refused}");
        assert_eq!(row_of(&view, "s9", true).unwrap(), None);
        assert!(row_of(&view, "s9", false).is_err());
        assert_eq!(row_of(&view, "3", true).unwrap().map(|row| row.id), Some(3));
    }

    #[test]
    fn a_server_of_up_is_rebuilt_whatever_it_is_and_the_leader_judges_its_removal() {
        let view = view(&["running", "running", "failed"]);
        for row in &view.members {
            let planned = plan(Some(row), true, &view).unwrap();
            assert_eq!(planned, Plan::Rebuild { remove: Some(row.id) });
        }
        assert_eq!(plan(None, true, &view).unwrap(), Plan::Rebuild { remove: None });
    }

    #[test]
    fn elsewhere_only_the_dead_are_replaced_and_only_by_a_quorum() {
        // States of all voters, of which the last is to be replaced, and why not.
        let table: &[(&[&str], Option<&str>)] = &[
            (&["running", "running", "unreachable"], None),
            (&["running", "running", "failed"], None),
            (&["running", "running", "running"], Some("s3 runs: stop its process first")),
            (&["running", "unreachable", "unreachable"], Some("1 of 3 voters answer, and 2 are")),
            (&["running", "unreachable"], Some("1 of 2 voters answer, and 2 are needed")),
            (&["unreachable"], Some("0 of 1 voters answer")),
        ];
        for (states, expected) in table {
            let states: Vec<&'static str> = states.to_vec();
            let view = view(&states);
            let planned = plan(view.members.last(), false, &view);
            match expected {
                None => assert_eq!(planned.unwrap(), Plan::AwaitJoin, "{states:?}"),
                Some(why) => {
                    let error = planned.unwrap_err().to_string();
                    assert!(error.contains(why), "{states:?}: {error}");
                }
            }
        }
        plan(None, false, &view(&["running"])).unwrap_err();
    }
}
