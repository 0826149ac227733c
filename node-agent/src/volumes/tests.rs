use serde_json::json;

use super::*;

fn pod(volumes: &serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u1", "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c" }], "volumes": volumes },
    }))
    .unwrap()
}

fn references(color: &str) -> References {
    let map = serde_json::from_value(json!({ "data": { "color": color, "size": "1" } })).unwrap();
    References {
        config_maps: BTreeMap::from([("settings".to_owned(), Some(map))]),
        ..References::default()
    }
}

fn fill(paths: &Paths, pod: &Pod, references: &References) -> Result<(), VolumeError> {
    let (facts, tokens) = (Facts::default(), Tokens::default());
    prepare(paths, pod, Sources { references, facts: &facts, tokens: &tokens })
}

#[test]
fn a_config_map_becomes_files_that_change_all_at_once() {
    let data = tempfile::tempdir().unwrap();
    let paths = Paths::new(data.path());
    let pod = pod(&json!([{
        "name": "v",
        "configMap": { "name": "settings", "items": [{ "key": "color", "path": "a/color", "mode": 0o400 }] },
    }]));
    fill(&paths, &pod, &references("red")).unwrap();
    let dir = paths.pod("u1").join("volumes/v");
    let file = dir.join("a/color");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "red");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o400);
    let before = std::fs::read_link(dir.join("..data")).unwrap();
    fill(&paths, &pod, &references("red")).unwrap();
    assert_eq!(std::fs::read_link(dir.join("..data")).unwrap(), before, "nothing changed");
    fill(&paths, &pod, &references("blue")).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "blue");
    assert!(!dir.join(before).exists(), "the old files are gone");
}

#[test]
fn what_cannot_be_mounted_is_named() {
    let data = tempfile::tempdir().unwrap();
    let paths = Paths::new(data.path());
    let cases = [
        (json!({ "name": "v", "configMap": { "name": "none" } }), "configmap \"none\" not found"),
        (
            json!({ "name": "v", "configMap": { "name": "settings", "items": [{ "key": "x", "path": "x" }] } }),
            "references non-existent key: x",
        ),
        (json!({ "name": "v", "nfs": { "server": "s", "path": "/" } }), "not supported"),
        (
            json!({ "name": "v", "hostPath": { "path": "/nonexistent", "type": "Directory" } }),
            "hostPath type check failed: /nonexistent is not a directory",
        ),
    ];
    for (volume, want) in cases {
        let error = fill(&paths, &pod(&json!([volume])), &references("red")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(want) && text.contains("volume \"v\""), "{text}");
    }
}

#[test]
fn an_optional_config_map_may_be_absent() {
    let data = tempfile::tempdir().unwrap();
    let pod = pod(&json!([{ "name": "v", "configMap": { "name": "none", "optional": true } }]));
    fill(&Paths::new(data.path()), &pod, &References::default()).unwrap();
}

#[test]
fn a_sub_path_cannot_lead_out_of_its_volume() {
    let volume = tempfile::tempdir().unwrap();
    assert!(inside(volume.path(), "../x").is_err());
    assert!(inside(volume.path(), "/etc").is_err());
    std::os::unix::fs::symlink("/etc", volume.path().join("link")).unwrap();
    assert!(inside(volume.path(), "link").unwrap_err().contains("leads out"));
    assert!(inside(volume.path(), "a/b").unwrap().is_dir());
}

#[test]
fn an_empty_dir_is_open_to_every_user_and_goes_with_the_pod() {
    let data = tempfile::tempdir().unwrap();
    let paths = Paths::new(data.path());
    let pod = pod(&json!([{ "name": "v", "emptyDir": {} }]));
    fill(&paths, &pod, &References::default()).unwrap();
    let dir = paths.pod("u1").join("volumes/v");
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o777);
    tear_down(&paths, "u1").unwrap();
    assert!(!paths.pod("u1").exists());
    tear_down(&paths, "u1").unwrap();
}

#[test]
fn the_kernels_escapes_are_undone() {
    assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
    assert_eq!(unescape("/plain"), "/plain");
}
