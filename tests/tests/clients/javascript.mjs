// The JavaScript library as programs use it: every list, every kind of patch, custom objects,
// watches and informers.

import assert from 'node:assert/strict';

import * as k8s from '@kubernetes/client-node';

const NAMESPACE = 'javascript';
const GROUP = 'javascript.example.com';

const config = new k8s.KubeConfig();
config.loadFromFile(process.env.KUBECONFIG);
const core = config.makeApiClient(k8s.CoreV1Api);

const as = (strategy) => k8s.setHeaderOptions('Content-Type', strategy);

// Every list of every group that the server has: 404 stands for a version that is past or to come.
async function lists() {
  let read = 0;
  const special = /KubernetesObject|CustomObjects|Logs|Openid|WellKnown|Observable|Promise|^Object/;
  for (const [name, api] of Object.entries(k8s)) {
    if (!/V\d\w*Api$/.test(name) || special.test(name)) continue;
    const group = config.makeApiClient(api);
    try {
      await group.getAPIResources();
    } catch (error) {
      assert.equal(error.code, 404, name);
      continue;
    }
    for (const method of Object.getOwnPropertyNames(Object.getPrototypeOf(group))) {
      if (!/^list/.test(method) || /WithHttpInfo$/.test(method)) continue;
      const list = await group[method]({ namespace: NAMESPACE });
      assert.ok(list.metadata.resourceVersion, method);
      read += 1;
    }
  }
  assert.ok(read > 80, `${read} lists`);
}

async function patches() {
  const apps = config.makeApiClient(k8s.AppsV1Api);
  const labels = { app: 'web' };
  const body = {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'web' },
    spec: {
      replicas: 0,
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: { containers: [{ name: 'first', image: 'a:1' }] } },
    },
  };
  await apps.createNamespacedDeployment({ namespace: NAMESPACE, body });
  const patch = (body, strategy, further = {}) =>
    apps.patchNamespacedDeployment({ name: 'web', namespace: NAMESPACE, body, ...further }, as(strategy));
  const { PatchStrategy } = k8s;
  let found = await patch([{ op: 'add', path: '/metadata/labels', value: { x: 'y' } }], PatchStrategy.JsonPatch);
  assert.equal(found.metadata.labels.x, 'y');
  found = await patch({ metadata: { annotations: { a: '1' } } }, PatchStrategy.MergePatch);
  assert.equal(found.metadata.annotations.a, '1');
  const second = { spec: { template: { spec: { containers: [{ name: 'second', image: 'b:1' }] } } } };
  found = await patch(second, PatchStrategy.StrategicMergePatch);
  assert.equal(found.spec.template.spec.containers.length, 2);
  body.spec.template.spec.containers[0].image = 'a:2';
  const applied = { fieldManager: 'javascript' };
  await assert.rejects(patch(body, PatchStrategy.ServerSideApply, applied), { code: 409 });
  found = await patch(body, PatchStrategy.ServerSideApply, { ...applied, force: true });
  assert.ok(found.metadata.managedFields.some((m) => m.manager === 'javascript' && m.operation === 'Apply'));
  const scale = await apps.readNamespacedDeploymentScale({ name: 'web', namespace: NAMESPACE });
  assert.equal(scale.kind, 'Scale');
}

async function untyped() {
  const objects = k8s.KubernetesObjectApi.makeApiClient(config);
  const metadata = { name: 'untyped', namespace: NAMESPACE };
  const map = { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { a: '1' } };
  await objects.create(map);
  const found = await objects.read(map);
  await objects.replace({ ...found, data: { a: '2' } });
  await objects.patch({ ...map, data: { b: '3' } });
  assert.deepEqual((await objects.read(map)).data, { a: '2', b: '3' });
  await objects.delete(map);
  await assert.rejects(objects.read(map), { code: 404 });
}

async function custom() {
  const definitions = config.makeApiClient(k8s.ApiextensionsV1Api);
  const things = config.makeApiClient(k8s.CustomObjectsApi);
  const counted = { type: 'object', properties: { n: { type: 'integer' } } };
  const version = {
    name: 'v1',
    served: true,
    storage: true,
    subresources: { status: {}, scale: { specReplicasPath: '.spec.n', statusReplicasPath: '.status.n' } },
    schema: { openAPIV3Schema: { type: 'object', properties: { spec: counted, status: counted } } },
  };
  const name = `things.${GROUP}`;
  const names = { plural: 'things', kind: 'Thing' };
  const spec = { group: GROUP, scope: 'Namespaced', names, versions: [version] };
  await definitions.createCustomResourceDefinition({ body: { metadata: { name }, spec } });
  for (;;) {
    const found = await definitions.readCustomResourceDefinition({ name });
    if (found.status?.conditions?.some((c) => c.type === 'Established' && c.status === 'True')) break;
    await new Promise((wake) => setTimeout(wake, 50));
  }
  const all = { group: GROUP, version: 'v1', namespace: NAMESPACE, plural: 'things' };
  const one = { ...all, name: 't' };
  const body = { apiVersion: `${GROUP}/v1`, kind: 'Thing', metadata: { name: 't' }, spec: { n: 1 } };
  await things.createNamespacedCustomObject({ ...all, body });
  await things.patchNamespacedCustomObject({ ...one, body: [{ op: 'replace', path: '/spec/n', value: 2 }] });
  await things.patchNamespacedCustomObjectStatus({ ...one, body: { status: { n: 5 } } }, as(k8s.PatchStrategy.MergePatch));
  const scale = await things.getNamespacedCustomObjectScale(one);
  assert.deepEqual([scale.spec.replicas, scale.status.replicas], [2, 5]);
  const strategic = as(k8s.PatchStrategy.StrategicMergePatch);
  await assert.rejects(things.patchNamespacedCustomObject({ ...one, body: {} }, strategic), { code: 415 });
  assert.equal((await things.listNamespacedCustomObject(all)).kind, 'ThingList');
  await things.deleteCollectionNamespacedCustomObject(all);
  await definitions.deleteCustomResourceDefinition({ name });
}

async function watches() {
  const path = `/api/v1/namespaces/${NAMESPACE}/secrets`;
  const list = await core.listNamespacedSecret({ namespace: NAMESPACE });
  const seen = [];
  const ended = new Promise((end, fail) => {
    const query = { resourceVersion: list.metadata.resourceVersion, allowWatchBookmarks: true };
    const heard = (phase) => {
      if (phase !== 'BOOKMARK') seen.push(phase);
      if (phase === 'DELETED') end();
    };
    new k8s.Watch(config).watch(path, query, heard, fail).catch(fail);
  });
  const informer = k8s.makeInformer(config, path, () => core.listNamespacedSecret({ namespace: NAMESPACE }));
  const informed = new Promise((told) => informer.on('delete', told));
  await informer.start();
  const metadata = { name: 's' };
  await core.createNamespacedSecret({ namespace: NAMESPACE, body: { metadata, stringData: { a: 'b' } } });
  const body = [{ op: 'replace', path: '/data/a', value: 'Yw==' }];
  await core.patchNamespacedSecret({ name: 's', namespace: NAMESPACE, body });
  await core.deleteNamespacedSecret({ name: 's', namespace: NAMESPACE });
  await Promise.all([ended, informed]);
  assert.deepEqual(seen, ['ADDED', 'MODIFIED', 'DELETED']);
}

await core.createNamespace({ body: { metadata: { name: NAMESPACE } } });
await lists();
await patches();
await untyped();
await custom();
await watches();
await assert.rejects(core.readNamespacedPod({ name: 'no', namespace: NAMESPACE }), { code: 404 });
process.exit(0);
