//! Lists: pages of one revision, selectors, and how fresh they are.

use kontiki_storage::kv::Revision;

use super::*;

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect()
}

#[tokio::test]
async fn pages_are_of_the_first_page_s_revision() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        cluster.config_map(name, json!({})).await;
    }
    let first = cluster.get(&format!("{CONFIG_MAPS}?limit=2")).await.ok();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    let token = first["metadata"]["continue"].as_str().expect("a token").to_owned();
    cluster.config_map("bb", json!({})).await;
    cluster.delete(&format!("{CONFIG_MAPS}/d"), &Value::Null).await.ok();
    let second = cluster.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.ok();
    assert_eq!(names(&second), ["c", "d"], "what came or went since is not seen");
    assert_eq!(version_of(&second), version_of(&first));
    let token = second["metadata"]["continue"].as_str().expect("a token").to_owned();
    let last = cluster.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.ok();
    assert_eq!(names(&last), ["e"]);
    assert_eq!(last["metadata"].get("continue"), None);
    assert_eq!(last["metadata"].get("remainingItemCount"), None);
}

#[tokio::test]
async fn a_token_of_a_compacted_revision_is_exchanged_for_an_inconsistent_one() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        cluster.config_map(name, json!({})).await;
    }
    let first = cluster.get(&format!("{CONFIG_MAPS}?limit=1")).await.ok();
    let token = first["metadata"]["continue"].as_str().expect("a token").to_owned();
    let latest = cluster.config_map("bb", json!({})).await;
    let revision = version_of(&latest).parse().expect("a number");
    cluster.kv.compact(Revision::new(revision)).await.expect("a revision that is there");
    let gone = cluster.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await;
    assert_eq!((gone.code, gone.refusal().1), (410, "Expired"));
    let token = gone.body["metadata"]["continue"].as_str().expect("another token");
    let rest = cluster.get(&format!("{CONFIG_MAPS}?continue={token}")).await.ok();
    assert_eq!(names(&rest), ["b", "bb", "c"]);
    let exact = format!("{CONFIG_MAPS}?resourceVersion=2&resourceVersionMatch=Exact");
    assert_eq!(cluster.get(&exact).await.code, 410);
}

#[tokio::test]
async fn selectors_select_and_pages_go_on_behind_what_they_leave_out() {
    let cluster = Cluster::start().await;
    for (index, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        let parity = if index % 2 == 0 { "even" } else { "odd" };
        cluster.config_map(name, json!({ "parity": parity })).await;
    }
    let even = format!("{CONFIG_MAPS}?labelSelector=parity%3Deven");
    assert_eq!(names(&cluster.get(&even).await.ok()), ["a", "c", "e"]);
    let page = cluster.get(&format!("{even}&limit=2")).await.ok();
    assert_eq!(names(&page), ["a", "c"]);
    assert_eq!(page["metadata"].get("remainingItemCount"), None, "a selector hides the count");
    let token = page["metadata"]["continue"].as_str().expect("a token").to_owned();
    let rest = cluster.get(&format!("{even}&limit=2&continue={token}")).await.ok();
    assert_eq!(names(&rest), ["e"]);
    let one = cluster.get(&format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Db")).await.ok();
    assert_eq!(names(&one), ["b"]);
    let all = cluster.get("/api/v1/configmaps?fieldSelector=metadata.name%3Db").await.ok();
    assert_eq!(names(&all), ["b"], "over all namespaces too");
}

#[tokio::test]
async fn a_revision_of_the_past_is_read_as_it_was_and_one_of_the_future_is_waited_for() {
    let cluster = Cluster::start().await;
    let first = cluster.config_map("a", json!({})).await;
    cluster.config_map("b", json!({})).await;
    let then = version_of(&first);
    let path = format!("{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=Exact");
    assert_eq!(names(&cluster.get(&path).await.ok()), ["a"]);
    let path = format!("{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=NotOlderThan");
    assert_eq!(names(&cluster.get(&path).await.ok()), ["a", "b"]);
    let future = cluster.get(&format!("{CONFIG_MAPS}?resourceVersion=999999")).await;
    assert_eq!((future.code, future.refusal().1), (504, "Timeout"));
    assert_eq!(future.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    for query in ["resourceVersion=x", "limit=-1", "resourceVersionMatch=Exact", "continue=%21"] {
        let answer = cluster.get(&format!("{CONFIG_MAPS}?{query}")).await;
        assert!(matches!(answer.code, 400 | 422), "{query}: {}", answer.code);
    }
}
