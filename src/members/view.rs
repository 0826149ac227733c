//! The members as the servers that answer see them together. Pure.

use std::time::Duration;

use serde::Serialize;

use crate::cluster_status::ServerStatus;

/// What one server said when it was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its URL.
    pub api: String,
    /// Its status, or why there is none.
    pub answer: Result<ServerStatus, String>,
    /// How long that took.
    pub took: Duration,
}

impl Asked {
    /// Which member answered.
    fn id(&self) -> Option<u64> {
        self.answer.as_ref().ok().map(|status| status.id)
    }
}

/// One member.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its number.
    pub id: u64,
    /// Its name; empty where it was never started.
    pub name: String,
    /// `voter` or `learner`.
    pub role: String,
    /// Whether it leads.
    pub leads: bool,
    /// Where its peers reach it.
    pub raft: String,
    /// URL of its API.
    pub api: String,
    /// The last log entry it has applied; where it does not answer, that its log has, as the leader
    /// knows.
    pub applied: Option<u64>,
    /// How many committed entries it has not applied yet.
    pub lag: Option<u64>,
    /// The revision of its store, where it answers.
    pub revision: Option<u64>,
    /// How many milliseconds its answer took, where it answers.
    pub answered_in_ms: Option<f64>,
    /// `running`, `unreachable`, `failed` or `unstarted`.
    pub state: &'static str,
    /// Why it is not running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// The cluster.
    pub cluster_id: String,
    /// Its term.
    pub term: u64,
    /// The leader's name, where somebody knows it.
    pub leader: Option<String>,
    /// The last entry of the leader's log.
    pub last_log_index: u64,
    /// By number.
    pub members: Vec<Row>,
}

impl View {
    /// Of what the servers said; `None` where none answered. The leader knows best, or else who is
    /// of the highest term and has applied most.
    pub fn of(asked: &[Asked]) -> Option<Self> {
        let answers = || asked.iter().filter_map(|asked| asked.answer.as_ref().ok());
        let best = answers()
            .max_by_key(|status| (status.role == "leader", status.term, status.applied_index))?;
        let commit = answers().map(|status| status.commit_index).max().unwrap_or(0);
        let leader = answers().find(|status| status.term == best.term && status.leader.is_some());
        let rows = best.members.iter().map(|member| {
            let spoken = asked.iter().find(|asked| asked.id() == Some(member.id));
            let own = spoken.and_then(|asked| asked.answer.as_ref().ok());
            let applied = own.map(|own| own.applied_index).or(member.matched);
            let (state, error) = state(member, own, asked);
            Row {
                id: member.id,
                name: member.name.clone(),
                role: member.role.clone(),
                leads: own.is_some_and(|own| own.role == "leader" && own.term == best.term),
                raft: member.raft.clone(),
                api: spoken.map_or(&member.api, |asked| &asked.api).clone(),
                lag: applied.map(|applied| commit.saturating_sub(applied)),
                applied,
                revision: own.map(|own| own.revision),
                answered_in_ms: spoken.map(|asked| asked.took.as_secs_f64() * 1000.0),
                state,
                error,
            }
        });
        Some(Self {
            cluster_id: best.cluster_id.clone(),
            term: best.term,
            leader: leader.and_then(|status| status.leader.clone()),
            last_log_index: best.last_log_index,
            members: rows.collect(),
        })
    }

    /// URLs of members that were not asked yet.
    pub fn apis_beside(&self, asked: &[String]) -> Vec<String> {
        let apis = self.members.iter().filter(|row| row.state == "unreachable");
        apis.map(|row| row.api.clone()).filter(|api| !asked.contains(api)).collect()
    }

    /// URLs of those that answer, the leader's first.
    pub fn answering(&self) -> Vec<&str> {
        let mut rows: Vec<&Row> = self.members.iter().filter(|r| r.state == "running").collect();
        rows.sort_by_key(|row| !row.leads);
        rows.iter().map(|row| row.api.as_str()).collect()
    }

    /// The member of that name or number.
    pub fn find(&self, who: &str) -> anyhow::Result<&Row> {
        let by_name: Vec<&Row> = self.members.iter().filter(|row| row.name == who).collect();
        let by_id = || self.members.iter().find(|row| row.id.to_string() == who);
        match by_name.as_slice() {
            [row] => Ok(row),
            [] => by_id().ok_or_else(|| {
                let known: Vec<String> = self.members.iter().map(label).collect();
                anyhow::anyhow!("{who:?} is no member; members are {}", known.join(", "))
            }),
            several => {
                let ids: Vec<String> = several.iter().map(|row| row.id.to_string()).collect();
                anyhow::bail!(
                    "several members are called {who:?}: say which by its number: {}",
                    ids.join(", ")
                )
            }
        }
    }
}

fn label(row: &Row) -> String {
    if row.name.is_empty() { row.id.to_string() } else { row.name.clone() }
}

fn state(
    member: &crate::cluster_status::MemberStatus,
    own: Option<&ServerStatus>,
    asked: &[Asked],
) -> (&'static str, Option<String>) {
    match own {
        Some(own) if own.failed.is_some() => ("failed", own.failed.clone()),
        Some(_) => ("running", None),
        None if member.api.is_empty() => ("unstarted", None),
        None => {
            let said = asked.iter().find(|asked| asked.api == member.api);
            ("unreachable", said.and_then(|said| said.answer.clone().err()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_status::MemberStatus;

    fn status(id: u64, role: &str, applied: u64, matched: &[(u64, Option<u64>)]) -> ServerStatus {
        let members = matched.iter().map(|(id, matched)| MemberStatus {
            id: *id,
            name: format!("s{id}"),
            api: format!("https://h:{id}"),
            raft: format!("h:{id}"),
            etcd: String::new(),
            role: "voter".into(),
            matched: *matched,
        });
        ServerStatus {
            name: format!("s{id}"),
            id,
            cluster_id: "c".into(),
            role: role.into(),
            leader: Some("s1".into()),
            term: 3,
            commit_index: 100,
            applied_index: applied,
            last_log_index: 105,
            last_log_term: 3,
            revision: 7,
            compacted: 0,
            hash: String::new(),
            failed: None,
            members: members.collect(),
        }
    }

    fn answered(status: ServerStatus) -> Asked {
        Asked { api: format!("https://h:{}", status.id), answer: Ok(status), took: Duration::ZERO }
    }

    #[test]
    fn the_leader_tells_who_belongs_and_how_far_the_log_of_a_silent_member_goes() {
        let everybody = [(1, Some(105)), (2, Some(105)), (3, Some(60))];
        let asked = [
            answered(status(2, "follower", 98, &[(2, None)])),
            answered(status(1, "leader", 100, &everybody)),
            Asked {
                api: "https://h:3".into(),
                answer: Err("connection refused".into()),
                took: Duration::ZERO,
            },
        ];
        let view = View::of(&asked).unwrap();
        let rows: Vec<_> = view.members.iter().map(|r| (r.id, r.state, r.lag, r.leads)).collect();
        assert_eq!(
            rows,
            [
                (1, "running", Some(0), true),
                (2, "running", Some(2), false),
                (3, "unreachable", Some(40), false)
            ]
        );
        assert_eq!(view.members[2].error.as_deref(), Some("connection refused"));
        assert_eq!(view.answering(), ["https://h:1", "https://h:2"]);
    }

    #[test]
    fn a_member_is_found_by_name_or_number_and_one_that_is_none_is_answered_with_those_there_are() {
        let asked = [answered(status(1, "leader", 100, &[(1, None), (2, None)]))];
        let view = View::of(&asked).unwrap();
        assert_eq!(view.find("s2").unwrap().id, 2);
        assert_eq!(view.find("2").unwrap().name, "s2");
        let error = view.find("s9").unwrap_err().to_string();
        assert_eq!(error, "\"s9\" is no member; members are s1, s2");
        assert_eq!(View::of(&[]), None);
    }
}
