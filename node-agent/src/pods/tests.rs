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
