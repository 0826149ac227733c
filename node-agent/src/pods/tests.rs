//! The keeper of the workers, over the runtime in memory.

use super::*;
use crate::pod_worker::testing::Lab;

#[tokio::test]
async fn a_pod_whose_worker_broke_gets_another_one() {
    let lab = Lab::new(&["i:1"]);
    let mut pods = Pods::new(lab.context.clone(), PodIndex::default());
    let shutdown = CancellationToken::new();
    lab.runtime.break_once();
    pods.change(Change::Apply(Box::new(lab.pod.clone())), &shutdown);
    let ended = pods.workers.join_next_with_id().await.unwrap();
    assert!(ended.is_err(), "it must have broken");
    pods.worker_ended(ended, &shutdown);
    lab.until("the container runs", || lab.runtime.running("c").is_some()).await;
    assert!(pods.index.find("ns", "p").is_some());
    shutdown.cancel();
    while pods.workers.join_next().await.is_some() {}
}

#[tokio::test]
async fn what_only_the_runtime_knows_is_removed_once_the_api_was_heard() {
    let lab = Lab::new(&["i:1"]);
    lab.leave_behind().await;
    let logs = lab.context.paths.pod_logs("ns", "p", "u");
    std::fs::create_dir_all(&logs).unwrap();
    let mut pods = Pods::new(lab.context.clone(), PodIndex::default());
    let shutdown = CancellationToken::new();
    pods.look(lab.runtime.list().await.unwrap(), &shutdown);
    assert!(pods.handles.is_empty(), "nobody was heard yet");
    pods.change(Change::Reset(Vec::new()), &shutdown);
    let (_, ()) = pods.workers.join_next_with_id().await.unwrap().unwrap();
    let (sandboxes, containers) = lab.runtime.all();
    assert!(sandboxes.is_empty() && containers.is_empty());
    assert!(!logs.exists(), "its logs are found without its name");
    assert!(!lab.api.deleted(), "nothing is asked of the API");
}

/// What a file says: a pod `p` with the one container `c` of this image.
fn from_file(image: &str) -> Pod {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: p }}\n\
         spec: {{ containers: [{{ name: c, image: {image}, imagePullPolicy: IfNotPresent }}] }}\n"
    );
    std::fs::write(dir.path().join("p.yaml"), text).unwrap();
    let mut pod = crate::static_pods::read(dir.path(), "n1").unwrap().remove(0);
    // The folder's name is in it.
    pod.metadata.uid = Some(format!("uid-{image}"));
    pod
}

fn mirror_of(pod: &Pod, uid: &str) -> Pod {
    let mut mirror = pod.clone();
    mirror.metadata.uid = Some(uid.to_owned());
    let hash = crate::static_pods::annotation(pod, crate::static_pods::HASH).unwrap().to_owned();
    let annotations = mirror.metadata.annotations.as_mut().unwrap();
    annotations.insert(crate::static_pods::MIRROR.to_owned(), hash);
    mirror
}

/// Nudges all workers, and lets the task see which have ended.
async fn turn(pods: &mut Pods, shutdown: &CancellationToken) {
    for handle in pods.handles.values() {
        handle.nudge.notify_one();
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    while let Some(ended) = pods.workers.try_join_next_with_id() {
        pods.worker_ended(ended, shutdown);
    }
}

async fn until(
    pods: &mut Pods,
    shutdown: &CancellationToken,
    mut holds: impl FnMut(&Pods) -> bool,
) {
    for _ in 0..2000 {
        if holds(pods) {
            return;
        }
        turn(pods, shutdown).await;
    }
    panic!("it does not come to that");
}

#[tokio::test]
async fn a_static_pod_runs_without_the_api_and_ends_with_its_file() {
    let lab = Lab::new(&["i:1"]);
    lab.api.set_down(true);
    let mut pods = Pods::new(lab.context.clone(), PodIndex::default());
    let shutdown = CancellationToken::new();
    let runtime = lab.runtime.clone();
    pods.set_statics(vec![from_file("i:1")], &shutdown);
    until(&mut pods, &shutdown, |_| runtime.running("c").is_some()).await;
    assert!(pods.index.find("default", "p-n1").is_some());
    // The API does not have it, and never had.
    pods.change(Change::Reset(Vec::new()), &shutdown);
    for _ in 0..20 {
        turn(&mut pods, &shutdown).await;
    }
    assert!(runtime.running("c").is_some());
    pods.set_statics(Vec::new(), &shutdown);
    until(&mut pods, &shutdown, |pods| pods.handles.is_empty()).await;
    assert!(runtime.all().0.is_empty() && pods.view().borrow().pods.is_empty());
}

#[tokio::test]
async fn what_a_file_says_now_begins_when_what_it_said_has_ended() {
    let lab = Lab::new(&["i:1", "i:2"]);
    let mut pods = Pods::new(lab.context.clone(), PodIndex::default());
    let shutdown = CancellationToken::new();
    let runtime = lab.runtime.clone();
    pods.set_statics(vec![from_file("i:1")], &shutdown);
    until(&mut pods, &shutdown, |_| runtime.running("c").is_some()).await;
    pods.set_statics(vec![from_file("i:2")], &shutdown);
    let is_new = |c: crate::runtime::Container| c.image == "i:2";
    until(&mut pods, &shutdown, |_| runtime.running("c").is_some_and(is_new)).await;
    let calls = runtime.calls();
    let at = |wanted: &str| calls.iter().rposition(|call| call == wanted).unwrap();
    assert!(at("remove sandbox") < at("run sandbox"), "{calls:?}");
    assert_eq!(pods.handles.len(), 1);
}

#[tokio::test]
async fn a_mirror_is_told_the_status_and_one_made_anew_is_told_it_too() {
    let lab = Lab::new(&["i:1"]);
    let mut pods = Pods::new(lab.context.clone(), PodIndex::default());
    let shutdown = CancellationToken::new();
    let pod = from_file("i:1");
    pods.set_statics(vec![pod.clone()], &shutdown);
    let runtime = lab.runtime.clone();
    until(&mut pods, &shutdown, |_| runtime.running("c").is_some()).await;
    assert!(lab.api.written.lock().is_empty(), "nobody shows it");
    for (round, uid) in ["m1", "m2"].into_iter().enumerate() {
        pods.change(Change::Apply(Box::new(mirror_of(&pod, uid))), &shutdown);
        let api = lab.api.clone();
        until(&mut pods, &shutdown, |_| {
            let told = api.told.lock();
            told.iter().any(|told| told == uid) && api.written.lock().len() > round
        })
        .await;
        assert_eq!(lab.phase(), "Running");
        pods.change(Change::Delete(Box::new(mirror_of(&pod, uid))), &shutdown);
    }
    assert_eq!(runtime.calls().iter().filter(|call| *call == "start c").count(), 1);
    assert_eq!(pods.handles.len(), 1, "a mirror is no pod of its own");
}
