//! What becomes of an object whose owners are gone or wait for it, and what a terminating object's
//! finalizers ask for.

use std::sync::Arc;

use kontiki_api::informer::PartialObject;
use kontiki_api::registry::options::Propagation;
use kontiki_api::registry::{FOREGROUND, ORPHAN};

/// How it stands with an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is there.
    There,
    /// It is not, as the store itself says.
    Gone,
    /// It is there until its dependents are gone.
    Waiting,
    /// Nothing is known of its kind: it may become known.
    Unknown,
    /// It would be in a namespace while the dependent is in none: nothing can be said, ever.
    OutOfReach,
}

/// What to do with an object that has owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collect {
    /// It stays as it is.
    Keep,
    /// Look again later.
    LookAgain,
    /// It stays; the owners of these uids are taken off.
    Release(Vec<String>),
    /// It goes.
    Delete(Propagation),
    /// It goes, its dependents first; one of them waits for it in turn, so it must hold up none of
    /// its owners any more.
    UnblockAndDelete,
}

/// Decides about an object that is not being deleted. `standings` are those of its owners, in their
/// order.
pub fn collect(
    object: &PartialObject,
    standings: &[Standing],
    dependents: &[Arc<PartialObject>],
) -> Collect {
    if standings.is_empty() || standings.contains(&Standing::OutOfReach) {
        return Collect::Keep;
    }
    if standings.contains(&Standing::Unknown) {
        return Collect::LookAgain;
    }
    let not_there: Vec<String> = object
        .owners
        .iter()
        .zip(standings)
        .filter(|(_, standing)| **standing != Standing::There)
        .map(|(owner, _)| owner.uid.clone())
        .collect();
    if standings.contains(&Standing::There) {
        return if not_there.is_empty() { Collect::Keep } else { Collect::Release(not_there) };
    }
    if !standings.contains(&Standing::Waiting) || dependents.is_empty() {
        return Collect::Delete(asked_for(object));
    }
    if dependents.iter().any(|dependent| deletes_dependents(dependent)) {
        return Collect::UnblockAndDelete;
    }
    Collect::Delete(Propagation::Foreground)
}

/// The fate of the dependents that the object's finalizers ask for.
fn asked_for(object: &PartialObject) -> Propagation {
    if object.has_finalizer(ORPHAN) {
        Propagation::Orphan
    } else if object.has_finalizer(FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    }
}

/// Whether the object's dependents are to go before it does.
pub fn deletes_dependents(object: &PartialObject) -> bool {
    object.is_terminating && object.has_finalizer(FOREGROUND)
}

/// What to do for an object that is being deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// Nothing: no finalizer of the collector's holds it.
    Nothing,
    /// Take it off its dependents, then take this finalizer off.
    Orphan,
    /// Collect these dependents; it has to wait for some.
    Wait(Vec<Arc<PartialObject>>),
    /// No dependent holds it up: collect these, and take its finalizer off.
    LetGo(Vec<Arc<PartialObject>>),
}

/// Decides about an object that is being deleted.
pub fn finish(object: &PartialObject, dependents: &[Arc<PartialObject>]) -> Finish {
    if object.has_finalizer(ORPHAN) {
        return Finish::Orphan;
    }
    if !object.has_finalizer(FOREGROUND) {
        return Finish::Nothing;
    }
    let staying = dependents.iter().filter(|dependent| !dependent.is_terminating);
    let staying = staying.cloned().collect();
    if dependents.iter().any(|dependent| blocks(dependent, &object.uid)) {
        Finish::Wait(staying)
    } else {
        Finish::LetGo(staying)
    }
}

/// Whether the object holds up the deletion of its owner of that uid.
pub fn blocks(object: &PartialObject, owner: &str) -> bool {
    let holds_up = Some(true);
    object.owners.iter().any(|one| one.uid == owner && one.block_owner_deletion == holds_up)
}

#[cfg(test)]
mod tests {
    use kontiki_api::object::OwnerRef;

    use super::Standing::{Gone, OutOfReach, There, Unknown, Waiting};
    use super::*;

    fn owner(uid: &str, blocks: bool) -> OwnerRef {
        OwnerRef {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            name: uid.to_owned(),
            uid: uid.to_owned(),
            controller: None,
            block_owner_deletion: Some(blocks),
        }
    }

    /// An object; `owners` are uids, with `!` before those that it holds up.
    fn object(owners: &[&str], finalizers: &[&str], terminating: bool) -> PartialObject {
        let owners = owners.iter().map(|uid| {
            let blocks = uid.starts_with('!');
            owner(uid.trim_start_matches('!'), blocks)
        });
        PartialObject {
            uid: "own".into(),
            owners: owners.collect(),
            finalizers: finalizers.iter().map(|one| (*one).to_owned()).collect(),
            is_terminating: terminating,
            ..PartialObject::default()
        }
    }

    #[test]
    fn an_object_goes_when_no_owner_is_left_that_stays() {
        let released =
            |uids: &[&str]| Collect::Release(uids.iter().map(|uid| (*uid).to_owned()).collect());
        let go = Collect::Delete(Propagation::Background);
        for (standings, expected) in [
            (vec![], Collect::Keep),
            (vec![There], Collect::Keep),
            (vec![There, There], Collect::Keep),
            (vec![Gone], go.clone()),
            (vec![Gone, Gone], go.clone()),
            (vec![There, Gone], released(&["b"])),
            (vec![Waiting, There], released(&["a"])),
            (vec![Waiting, There, Gone], released(&["a", "c"])),
            (vec![Waiting], go.clone()),
            (vec![Waiting, Gone], go),
            (vec![Gone, Unknown], Collect::LookAgain),
            (vec![Gone, OutOfReach], Collect::Keep),
            (vec![Unknown, OutOfReach], Collect::Keep),
        ] {
            let owners = &["a", "b", "c"][..standings.len()];
            let object = object(owners, &[], false);
            assert_eq!(collect(&object, &standings, &[]), expected, "{standings:?}");
        }
    }

    #[test]
    fn what_goes_because_its_owner_waits_takes_its_own_dependents_first() {
        let object = object(&["!a"], &[], false);
        let dependent = |finalizers: &[&str], terminating| {
            Arc::new(self::object(&["!own"], finalizers, terminating))
        };
        let foreground = Collect::Delete(Propagation::Foreground);
        assert_eq!(collect(&object, &[Waiting], &[dependent(&[], false)]), foreground);
        assert_eq!(
            collect(&object, &[Gone], &[dependent(&[], false)]),
            Collect::Delete(Propagation::Background)
        );
        let circle = dependent(&[FOREGROUND], true);
        assert_eq!(collect(&object, &[Waiting], &[circle]), Collect::UnblockAndDelete);
    }

    #[test]
    fn what_the_object_asks_for_itself_is_kept() {
        for (finalizer, expected) in
            [(ORPHAN, Propagation::Orphan), (FOREGROUND, Propagation::Foreground)]
        {
            let object = object(&["a"], &[finalizer], false);
            assert_eq!(collect(&object, &[Gone], &[]), Collect::Delete(expected));
        }
    }

    #[test]
    fn a_terminating_object_waits_for_those_only_that_hold_it_up() {
        let waiting = object(&[], &[FOREGROUND], true);
        let holding = Arc::new(object(&["!own"], &[], false));
        let going = Arc::new(object(&["!own"], &[], true));
        let loose = Arc::new(object(&["own"], &[], false));
        let wait = |all: &[&Arc<PartialObject>]| {
            Finish::Wait(all.iter().map(|one| Arc::clone(one)).collect())
        };
        let all = [Arc::clone(&holding), Arc::clone(&going), Arc::clone(&loose)];
        assert_eq!(finish(&waiting, &all), wait(&[&holding, &loose]));
        assert_eq!(finish(&waiting, &[going]), wait(&[]));
        let let_go = Finish::LetGo(vec![Arc::clone(&loose)]);
        assert_eq!(finish(&waiting, &[loose]), let_go);
        assert_eq!(finish(&waiting, &[]), Finish::LetGo(vec![]));
        assert_eq!(finish(&object(&[], &["example.com/x"], true), &all), Finish::Nothing);
        assert_eq!(finish(&object(&[], &[ORPHAN, FOREGROUND], true), &all), Finish::Orphan);
    }
}
