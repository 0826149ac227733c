//! `kontiki member recover`: a cluster that lost its quorum for good goes on from what one of its
//! members has.
//!
//! ```text
//!  DIR/store ──copy──▶ DIR/recover.partial/from ──all of its log──▶ DIR/recover.partial/store
//!      │                                                                │
//!      └──▶ DIR/store.before-recovery-N     DIR/member.json: a new one  └──▶ DIR/store
//! ```
//!
//! Nothing of the member itself is changed before the new store is whole, and the old one is kept.
//! Whatever cuts it short, the same command does it again; between the new `member.json` and the new
//! store the server refuses to start, since one is not the other's.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use kontiki_raft::recover::{Survivor, look, recover as recover_store};
use kontiki_raft::restore::Founder;
use kontiki_raft::status::Role;
use kontiki_raft::types::Member;
use kontiki_storage::engine::Engine;
use kontiki_storage::engine::disk::DiskEngine;

use super::access::{administrator, status};
use crate::cluster_status::ServerStatus;
use crate::dir_lock::DirLock;
use crate::member::MemberRecord;
use crate::server::identity::FOUNDER_ID;

/// What came of it.
#[derive(Debug)]
pub struct Recovered {
    /// The server's name.
    pub name: String,
    /// Term and index of the last entry that it had.
    pub last_log: (u64, u64),
    /// The revision that the new cluster begins at.
    pub revision: u64,
    /// Where the old store is.
    pub kept: PathBuf,
    /// The names of the other members, who must join anew.
    pub others: Vec<String>,
}

/// Makes the member of `data_dir`, which must not run, a cluster of its own.
pub async fn run(data_dir: &Path, bump: u64) -> anyhow::Result<Recovered> {
    let record = MemberRecord::find(data_dir)?.with_context(|| {
        format!(
            "{} is not the data directory of a server: it has no member.json",
            data_dir.display()
        )
    })?;
    let _lock = DirLock::acquire(data_dir, "server")?;
    finish_names(data_dir)?;
    let survivor = look_at(&data_dir.join("store")).await?;
    let reached = ask_others(data_dir, &survivor).await?;
    decide(&survivor, &reached)?;
    let name = record.name.clone();
    let directory = data_dir.to_owned();
    let (revision, kept) =
        tokio::task::spawn_blocking(move || rebuild(&directory, &record, bump)).await??;
    let others = survivor.members.iter().filter(|known| known.id != survivor.identity.node);
    Ok(Recovered {
        name,
        last_log: (survivor.last_log.0.0, survivor.last_log.1),
        revision,
        kept,
        others: others.map(|known| known.member.name.clone()).collect(),
    })
}

async fn look_at(store: &Path) -> anyhow::Result<Survivor> {
    ensure!(store.is_dir(), "{} does not exist: there is nothing to recover from", store.display());
    let store = store.to_owned();
    let looked = tokio::task::spawn_blocking(move || anyhow::Ok(look(&open(&store)?)?));
    looked.await?
}

fn open(store: &Path) -> anyhow::Result<Arc<dyn Engine>> {
    let opened = DiskEngine::open(store);
    Ok(Arc::new(opened.with_context(|| format!("open the store {}", store.display()))?))
}

/// The statuses of the other members that answer.
async fn ask_others(data_dir: &Path, survivor: &Survivor) -> anyhow::Result<Vec<ServerStatus>> {
    let http = administrator(data_dir)?;
    let others = survivor
        .members
        .iter()
        .filter(|known| known.id != survivor.identity.node && !known.member.api_url.is_empty());
    let asked = others.map(|known| status(&http, &known.member.api_url));
    let answers = futures_util::future::join_all(asked).await;
    // One of another cluster has but taken an address.
    let ours = |status: &ServerStatus| status.cluster_id == survivor.identity.cluster;
    Ok(answers.into_iter().flatten().filter(ours).collect())
}

/// Whether the cluster is really lost, and this its best part.
fn decide(survivor: &Survivor, reached: &[ServerStatus]) -> anyhow::Result<()> {
    let voters: Vec<u64> =
        survivor.members.iter().filter(|known| known.role == Role::Voter).map(|m| m.id).collect();
    let me = survivor.identity.node;
    let needed = voters.len() / 2 + 1;
    let live = |status: &&ServerStatus| status.failed.is_none() && voters.contains(&status.id);
    let answering = reached.iter().filter(live).count();
    if answering >= needed {
        bail!(
            "{answering} of {} voters answer: the cluster is not lost. Have this server back as a \
             new member with `kontiki member replace`",
            voters.len()
        );
    }
    if voters.contains(&me) && answering + 1 >= needed {
        bail!(
            "with this server {} of {} voters would answer: start it, and the cluster goes on",
            answering + 1,
            voters.len()
        );
    }
    let (term, index) = (survivor.last_log.0.0, survivor.last_log.1);
    let better = reached.iter().filter(|status| status.failed.is_none());
    let better = better.max_by_key(|status| (status.last_log_term, status.last_log_index));
    match better {
        Some(other) if (other.last_log_term, other.last_log_index) > (term, index) => bail!(
            "{} has more: its log ends with entry {} of term {}, this one's with entry {index} of \
             term {term}. Stop {} and recover from its data directory",
            other.name,
            other.last_log_index,
            other.last_log_term,
            other.name
        ),
        _ => Ok(()),
    }
}

/// Ends what a recovery left that was cut short between the names of the old and the new store.
fn finish_names(data_dir: &Path) -> anyhow::Result<()> {
    let (store, made) = (data_dir.join("store"), partial(data_dir).join("store"));
    if !store.exists() && made.exists() {
        fs::rename(&made, &store).with_context(|| format!("name {}", store.display()))?;
        fs::File::open(data_dir).and_then(|folder| folder.sync_all()).context("sync the names")?;
        let partial = partial(data_dir);
        fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
        bail!("an earlier recovery was cut short and is finished now: start the server");
    }
    Ok(())
}

fn partial(data_dir: &Path) -> PathBuf {
    data_dir.join("recover.partial")
}

/// Builds the new store beside the old one, then changes their names.
fn rebuild(data_dir: &Path, record: &MemberRecord, bump: u64) -> anyhow::Result<(u64, PathBuf)> {
    let (store, partial) = (data_dir.join("store"), partial(data_dir));
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
    }
    let (from, into) = (partial.join("from"), partial.join("store"));
    copy_folder(&store, &from).with_context(|| format!("copy {}", store.display()))?;
    let cluster_id = format!("{:032x}", rand::random::<u128>());
    let revision = fill(&from, &into, record, &cluster_id, bump)?;
    // No founder, which would begin an empty cluster where it found no store.
    let renewed = MemberRecord {
        joined: true,
        ..MemberRecord::new(&cluster_id, FOUNDER_ID, &record.name, false)
    };
    renewed.write(data_dir)?;
    let kept = (1..u32::MAX)
        .map(|number| data_dir.join(format!("store.before-recovery-{number}")))
        .find(|path| !path.exists())
        .context("a name must be free")?;
    fs::rename(&store, &kept).with_context(|| format!("name {}", kept.display()))?;
    fs::rename(&into, &store).with_context(|| format!("name {}", store.display()))?;
    fs::File::open(data_dir).and_then(|folder| folder.sync_all()).context("sync the names")?;
    fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
    Ok((revision, kept))
}

fn fill(
    from: &Path,
    into: &Path,
    record: &MemberRecord,
    cluster_id: &str,
    bump: u64,
) -> anyhow::Result<u64> {
    let (from, engine) = (open(from)?, open(into)?);
    let founder = Founder {
        cluster_id: cluster_id.to_owned(),
        node_id: FOUNDER_ID,
        // Where it is reached it says itself once it runs.
        member: Member { name: record.name.clone(), ..Member::default() },
    };
    let revision = recover_store(&from, &engine, &founder, bump).context("make the new store")?;
    engine.sync().with_context(|| format!("sync {}", into.display()))?;
    Ok(revision.get())
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kontiki_raft::status::MemberStatus;
    use kontiki_storage::kv::Term;
    use kontiki_storage::layout::Identity;

    use super::*;

    #[test]
    fn a_recovery_cut_short_between_the_names_is_finished_and_leaves_nothing() {
        let folder = tempfile::TempDir::new().unwrap();
        let made = partial(folder.path()).join("store");
        fs::create_dir_all(&made).unwrap();
        fs::create_dir_all(partial(folder.path()).join("from")).unwrap();
        let told = finish_names(folder.path()).unwrap_err();
        assert!(told.to_string().contains("finished now"), "{told}");
        assert!(folder.path().join("store").is_dir());
        assert!(!partial(folder.path()).exists());
        finish_names(folder.path()).unwrap();
    }

    /// Member 1 of so many voters, whose log ends at entry 10 of term 3.
    fn survivor(voters: u64) -> Survivor {
        let member = |id| MemberStatus { id, member: Member::default(), role: Role::Voter };
        Survivor {
            identity: Identity { cluster: "c".into(), node: 1 },
            last_log: (Term(3), 10),
            members: (1..=voters).map(member).collect(),
        }
    }

    fn reached(id: u64, term: u64, index: u64) -> ServerStatus {
        ServerStatus {
            name: format!("server-{id}"),
            id,
            cluster_id: "c".into(),
            role: "follower".into(),
            leader: None,
            term,
            commit_index: 0,
            applied_index: 0,
            last_log_index: index,
            last_log_term: term,
            revision: 0,
            compacted: 0,
            hash: String::new(),
            failed: None,
            members: Vec::new(),
        }
    }

    #[test]
    fn a_cluster_is_recovered_only_when_it_is_lost_and_from_its_best_part() {
        let (behind, ahead, later) = (reached(2, 3, 9), reached(2, 3, 11), reached(2, 4, 1));
        let second = reached(3, 3, 9);
        let failed = ServerStatus { failed: Some("differs".into()), ..ahead.clone() };
        // How many voters there were, who answers, and why not.
        let table: &[(u64, &[&ServerStatus], Option<&str>)] = &[
            (3, &[], None),
            (2, &[], None),
            (1, &[], Some("with this server 1 of 1 voters would answer: start it")),
            (3, &[&behind], Some("with this server 2 of 3 voters would answer: start it")),
            (3, &[&behind, &second], Some("2 of 3 voters answer: the cluster is not lost")),
            (5, &[&behind], None),
            (5, &[&ahead], Some("server-2 has more: its log ends with entry 11 of term 3")),
            (5, &[&later], Some("server-2 has more: its log ends with entry 1 of term 4")),
            (5, &[&failed], None),
            (3, &[&failed], None),
            (5, &[&behind, &second], Some("with this server 3 of 5 voters would answer")),
        ];
        for (voters, answering, expected) in table {
            let answering: Vec<ServerStatus> = answering.iter().map(|s| (*s).clone()).collect();
            let decided = decide(&survivor(*voters), &answering);
            match expected {
                None => decided.unwrap(),
                Some(why) => {
                    let error = decided.unwrap_err().to_string();
                    assert!(error.contains(why), "{voters} voters: {error}");
                }
            }
        }
    }
}
