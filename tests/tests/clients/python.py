"""The Python library as programs use it: typed, custom and dynamic objects, watches, every kind of
patch, a leader's election, and refusals to the byte."""

import threading

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock

GROUP = "python.example.com"
NAMESPACE = "python"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


def deployment(containers):
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    kind = {"apiVersion": "apps/v1", "kind": "Deployment"}
    return {**kind, "metadata": {"name": "web", "namespace": NAMESPACE}, "spec": spec}


def refused(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except client.ApiException as refusal:
        return refusal
    raise AssertionError(f"{call} should be refused")


def objects(core):
    for number in range(5):
        metadata = {"name": f"map-{number}", "labels": {"even": str(number % 2 == 0)}}
        core.create_namespaced_config_map(NAMESPACE, {"metadata": metadata, "data": {"a": "1"}})
    page = core.list_namespaced_config_map(NAMESPACE, label_selector="even=True", limit=2)
    assert len(page.items) == 2 and page.metadata._continue
    rest = core.list_namespaced_config_map(
        NAMESPACE, label_selector="even=True", limit=2, _continue=page.metadata._continue
    )
    assert [item.metadata.name for item in rest.items] == ["map-4"]
    stale = core.read_namespaced_config_map("map-0", NAMESPACE)
    core.replace_namespaced_config_map("map-0", NAMESPACE, {**stale.to_dict(), "data": {"a": "2"}})
    stale.data = {"a": "3"}
    assert refused(core.replace_namespaced_config_map, "map-0", NAMESPACE, stale).status == 409
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="even=False")
    left = core.list_namespaced_config_map(NAMESPACE, label_selector="even").items
    assert len(left) == 3


def refusals(api, core):
    """The library's own tests compare these bodies as they are."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "map-0"}}
    try:
        utils.create_from_dict(api, body, namespace=NAMESPACE)
        raise AssertionError("the name is taken")
    except utils.FailToCreateError as refusal:
        assert str(refusal) == (
            'Error from server (Conflict): {"kind":"Status","apiVersion":"v1","metadata":{},'
            '"status":"Failure","message":"configmaps \\"map-0\\" already exists",'
            '"reason":"AlreadyExists","details":{"name":"map-0","kind":"configmaps"},"code":409}\n'
        ), str(refusal)
    missing = refused(client.CustomObjectsApi(api).list_cluster_custom_object, GROUP, "v1", "no")
    assert (missing.status, missing.body) == (404, "404 page not found\n"), missing.body
    assert refused(core.read_namespace, "no").status == 404


def patches(apps):
    first = {"name": "first", "image": "a:1"}
    apps.create_namespaced_deployment(NAMESPACE, deployment([first]))

    def patched(body, media):
        return apps.patch_namespaced_deployment(
            "web", NAMESPACE, body, field_manager="python", _content_type=media
        )

    replaced = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "a:2"}]
    found = patched(replaced, "application/json-patch+json")
    assert found.spec.template.spec.containers[0].image == "a:2"
    second = {"name": "second", "image": "b:1"}
    found = patched({"spec": {"template": {"spec": {"containers": [second]}}}}, STRATEGIC)
    assert {c.name for c in found.spec.template.spec.containers} == {"first", "second"}
    found = patched({"spec": {"template": {"spec": {"containers": [second]}}}}, MERGE)
    assert [c.name for c in found.spec.template.spec.containers] == ["second"]
    conflict = refused(patched, deployment([{"name": "second", "image": "b:2"}]), APPLY)
    assert conflict.status == 409, conflict


def watches(core):
    start = core.list_namespaced_secret(NAMESPACE).metadata.resource_version

    def change():
        core.create_namespaced_secret(NAMESPACE, {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
        core.patch_namespaced_secret("s", NAMESPACE, {"stringData": {"a": "c"}})
        core.delete_namespaced_secret("s", NAMESPACE)

    threading.Timer(0.2, change).start()
    seen = []
    stream = watch.Watch()
    for event in stream.stream(
        core.list_namespaced_secret, NAMESPACE, resource_version=start, timeout_seconds=10
    ):
        seen.append(event["type"])
        if event["type"] == "DELETED":
            stream.stop()
    assert seen == ["ADDED", "MODIFIED", "DELETED"], seen


def custom(api):
    things = dynamic.DynamicClient(api)
    definitions = things.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    open_object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": open_object, "status": open_object}}
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    spec = {"group": GROUP, "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"}}
    spec["versions"] = [{**version, "schema": {"openAPIV3Schema": schema}}]
    kind = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    definitions.create(body={**kind, "metadata": {"name": f"things.{GROUP}"}, "spec": spec})
    for event in definitions.watch(name=f"things.{GROUP}", timeout=10):
        conditions = event["object"].status.conditions or []
        if any(c.type == "Established" and c.status == "True" for c in conditions):
            break
    kinds = things.resources.get(api_version=f"{GROUP}/v1", kind="Thing")
    body = {"apiVersion": f"{GROUP}/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"n": 1}}
    kinds.server_side_apply(body=body, namespace=NAMESPACE, field_manager="one")
    body["spec"]["n"] = 2
    try:
        kinds.server_side_apply(body=body, namespace=NAMESPACE, field_manager="two")
        raise AssertionError("the field is another manager's")
    except dynamic.exceptions.ConflictError:
        pass
    kinds.server_side_apply(body=body, namespace=NAMESPACE, field_manager="two", force_conflicts=True)
    found = kinds.status.patch(name="t", namespace=NAMESPACE, body={"status": {"ok": True}}, content_type=MERGE)
    assert (found.spec.n, found.status.ok) == (2, True)
    assert {m.manager for m in found.metadata.managedFields} >= {"two"}
    kinds.delete(name="t", namespace=NAMESPACE)
    definitions.delete(name=f"things.{GROUP}")


def election():
    """Of two candidates one leads."""
    led = threading.Semaphore(0)
    for name in ("one", "two"):
        lock = ConfigMapLock("lock", NAMESPACE, name)
        chosen = electionconfig.Config(lock, 15, 10, 2, led.release, None)
        threading.Thread(target=leaderelection.LeaderElection(chosen).run, daemon=True).start()
    assert led.acquire(timeout=10)
    assert not led.acquire(timeout=1)


def main():
    config.load_kube_config()
    api = client.ApiClient()
    core = client.CoreV1Api(api)
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    objects(core)
    refusals(api, core)
    patches(client.AppsV1Api(api))
    watches(core)
    custom(api)
    election()


main()
