//! Service accounts, their tokens, and what pods are given of them.

use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Api, Patch};
use crate::cases;
use crate::pods::main_of;
use crate::world::{World, holds, items, name_of, same};

const SOON: Duration = Duration::from_secs(60);
/// Where tokens are mounted.
const MOUNTED: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

cases! {
    "[sig-auth] ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer [Conformance]"
        => issuer,
    "[sig-auth] ServiceAccounts should allow opting out of API token automount [Conformance]"
        => automount,
    "[sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace [Conformance]"
        => root_authority,
    "[sig-auth] ServiceAccounts should mount an API token into pods [Conformance]"
        => mounted,
    "[sig-auth] ServiceAccounts should mount projected service account token [Conformance]"
        => projected,
    "[sig-auth] ServiceAccounts should run through the lifecycle of a ServiceAccount [Conformance]"
        => life,
    "[sig-auth] ServiceAccounts should update a ServiceAccount [Conformance]"
        => updated,
}

async fn account(world: &World, name: &str, automount: Option<bool>) -> Result<Value> {
    let mut object = json!({"metadata": {"name": name}});
    if let Some(automount) = automount {
        object["automountServiceAccountToken"] = json!(automount);
    }
    world.create("v1", "serviceaccounts", &object).await
}

/// What the API server says of a token.
async fn reviewed(world: &World, token: &str, audiences: Option<&str>) -> Result<Value> {
    let mut spec = json!({"token": token.trim()});
    if let Some(audience) = audiences {
        spec["audiences"] = json!([audience]);
    }
    let path = world.global("authentication.k8s.io/v1", "tokenreviews", "");
    let review = world.api.create(&path, &json!({"spec": spec})).await?;
    Ok(review["status"].clone())
}

/// A part of a token, decoded.
fn part(token: &str, number: usize) -> Result<Value> {
    let part = token.trim().split('.').nth(number).context("a token has three parts")?;
    Ok(serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part)?)?)
}

/// As a pod would: with a service account's token alone.
async fn issuer(world: World) -> Result<()> {
    account(&world, "reader", None).await?;
    let path = world.path("v1", "serviceaccounts", "reader/token");
    let request = json!({"spec": {"audiences": ["oidc-discovery-test"]}});
    let made = world.api.create(&path, &request).await?;
    let token = made["status"]["token"].as_str().context("a token")?;
    let own = world.api.create(&path, &json!({"spec": {}})).await?;
    let bearer = format!("Bearer {}", own["status"]["token"].as_str().context("a token")?);
    let client = Api::anonymous(&world.kubeconfig)?;
    let get = async |path: &str| {
        let answer = client.send(Method::GET, path, &[("authorization", &bearer)], None).await?;
        same(&format!("code of {path}"), &json!(answer.code), &json!(200))?;
        anyhow::Ok(answer)
    };
    let discovery = get("/.well-known/openid-configuration").await?.json();
    same("issuer", &discovery["issuer"], &part(token, 1)?["iss"])?;
    same("audience", &part(token, 1)?["aud"], &json!(["oidc-discovery-test"]))?;
    let algorithms = discovery["id_token_signing_alg_values_supported"].as_array();
    let header = part(token, 0)?;
    let named = algorithms.is_some_and(|all| all.contains(&header["alg"]));
    holds("the token's algorithm is named", named, &discovery)?;
    same("subjects", &discovery["subject_types_supported"], &json!(["public"]))?;
    let uri = discovery["jwks_uri"].as_str().context("where keys are")?;
    holds("keys are where jwks_uri says", uri.ends_with("/openid/v1/jwks"), &discovery)?;
    let keys = get("/openid/v1/jwks").await?.json();
    let key = keys["keys"].as_array().into_iter().flatten().find(|key| key["kid"] == header["kid"]);
    let key = key.with_context(|| format!("no key for {header}: {keys}"))?;
    verify(token, key)
}

/// Expects the token to be signed with that key (RSA or P-256, as Kubernetes has them).
fn verify(token: &str, key: &Value) -> Result<()> {
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
        UnparsedPublicKey,
    };
    let number = |name: &str| -> Result<Vec<u8>> {
        let text = key[name].as_str().with_context(|| format!("the key has {name}: {key}"))?;
        Ok(BASE64_URL_SAFE_NO_PAD.decode(text)?)
    };
    let (signed, signature) = token.rsplit_once('.').context("a token has three parts")?;
    let (signed, signature) = (signed.as_bytes(), BASE64_URL_SAFE_NO_PAD.decode(signature)?);
    let valid = if key["kty"] == "RSA" {
        let (n, e) = (number("n")?, number("e")?);
        RsaPublicKeyComponents { n, e }
            .verify(&RSA_PKCS1_2048_8192_SHA256, signed, &signature)
            .is_ok()
    } else {
        let point = [vec![4], number("x")?, number("y")?].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, &signature).is_ok()
    };
    holds("the signature is the key's", valid, key)
}

/// What the pod says wins over what the account says; neither is yes.
async fn automount(world: World) -> Result<()> {
    account(&world, "unsaid", None).await?;
    account(&world, "mount", Some(true)).await?;
    account(&world, "nomount", Some(false)).await?;
    let choices = [(None, "unsaid"), (Some(true), "mount"), (Some(false), "nomount")];
    for (of_account, name) in choices {
        for (of_pod, word) in choices {
            let mut pod = world.sleeper(&format!("{name}-{word}"));
            pod["spec"]["serviceAccountName"] = json!(name);
            if let Some(automount) = of_pod {
                pod["spec"]["automountServiceAccountToken"] = json!(automount);
            }
            let pod = world.create("v1", "pods", &pod).await?;
            let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array();
            let is_mounted =
                mounts.into_iter().flatten().any(|mount| mount["mountPath"] == MOUNTED);
            let expected = of_pod.or(of_account).unwrap_or(true);
            let what = format!("mounted, pod {of_pod:?}, account {of_account:?}");
            same(&what, &json!(is_mounted), &json!(expected))?;
            world.api.delete(&world.pod_path(name_of(&pod))).await?;
        }
    }
    Ok(())
}

async fn root_authority(world: World) -> Result<()> {
    let path = world.path("v1", "configmaps", "kube-root-ca.crt");
    let has = |map: &Value| {
        map["data"]["ca.crt"].as_str().is_some_and(|pem| pem.contains("BEGIN CERTIFICATE"))
    };
    let first = world.wait("it is there", &path, SOON, has).await?;
    world.api.delete(&path).await?;
    let again = |map: &Value| has(map) && map["metadata"]["uid"] != first["metadata"]["uid"];
    world.wait("it is made again", &path, SOON, again).await?;
    let change = json!({"data": {"ca.crt": "", "other": "x"}});
    world.api.patch(&path, Patch::Merge, &change).await?;
    let expected = first["data"].clone();
    let mended = |map: &Value| map["data"] == expected;
    world.wait("it says again what it said", &path, SOON, mended).await.map(drop)
}

/// Who a token of that account is.
fn expect_user(world: &World, status: &Value, name: &str) -> Result<()> {
    same("authenticated", &status["authenticated"], &json!(true))?;
    let user = format!("system:serviceaccount:{}:{name}", world.ns);
    same("user", &status["user"]["username"], &json!(user))?;
    let of_namespace = format!("system:serviceaccounts:{}", world.ns);
    for group in ["system:authenticated", "system:serviceaccounts", &of_namespace] {
        let groups = status["user"]["groups"].as_array().context("groups")?;
        holds(group, groups.iter().any(|known| known == group), &status["user"])?;
    }
    Ok(())
}

async fn mounted(world: World) -> Result<()> {
    account(&world, "mount-test", None).await?;
    let mut pod = world.sleeper("pod");
    pod["spec"]["serviceAccountName"] = json!("mount-test");
    world.run(&pod).await?;
    let token = world.exec("pod", &format!("cat {MOUNTED}/token")).await?;
    let status = reviewed(&world, &token, None).await?;
    expect_user(&world, &status, "mount-test")?;
    let extra = &status["user"]["extra"]["authentication.kubernetes.io/pod-name"];
    same("bound to the pod", extra, &json!(["pod"]))?;
    let authority = world.exec("pod", &format!("cat {MOUNTED}/ca.crt")).await?;
    let map = world.api.get(&world.path("v1", "configmaps", "kube-root-ca.crt")).await?;
    same("ca.crt", &json!(authority), &map["data"]["ca.crt"])?;
    let namespace = world.exec("pod", &format!("cat {MOUNTED}/namespace")).await?;
    same("namespace", &json!(namespace), &json!(world.ns))
}

async fn projected(world: World) -> Result<()> {
    let mut pod = world.pod("pod", &["/bin/cat", "/var/run/secrets/tokens/own/vault"]);
    let source = json!({"serviceAccountToken": {
        "path": "own/vault", "expirationSeconds": 3600, "audience": "vault",
    }});
    pod["spec"]["volumes"] = json!([{"name": "token", "projected": {"sources": [source]}}]);
    main_of(&mut pod)["volumeMounts"] =
        json!([{"name": "token", "mountPath": "/var/run/secrets/tokens"}]);
    let token = world.output(&pod).await?;
    let claims = part(&token, 1)?;
    same("audience", &claims["aud"], &json!(["vault"]))?;
    let times = ["iat", "exp"].map(|name| claims[name].as_i64().unwrap_or_default());
    same("seconds it lasts", &json!(times[1] - times[0]), &json!(3600))?;
    same("pod", &claims["kubernetes.io"]["pod"]["name"], &json!("pod"))?;
    // The pod has ended, but is there: its token holds.
    expect_user(&world, &reviewed(&world, &token, Some("vault")).await?, "default")
}

async fn life(world: World) -> Result<()> {
    let selector = format!("labelSelector=static%3D{}", world.ns);
    let everywhere = format!("{}?{selector}", world.global("v1", "serviceaccounts", ""));
    let mut watch = world.api.watch(&everywhere).await?;
    let object = json!({"metadata": {"name": "account", "labels": {"static": world.ns}}});
    world.create("v1", "serviceaccounts", &object).await?;
    watch.expect("ADDED", SOON, |account| name_of(account) == "account").await?;
    let path = world.path("v1", "serviceaccounts", "account");
    let patch = json!({"automountServiceAccountToken": false});
    let patched = world.api.patch(&path, Patch::Strategic, &patch).await?;
    same("patched", &patched["automountServiceAccountToken"], &json!(false))?;
    watch
        .expect("MODIFIED", SOON, |account| account["automountServiceAccountToken"] == false)
        .await?;
    let list = world.api.get(&everywhere).await?;
    same("listed", &json!(items(&list).len()), &json!(1))?;
    same("listed as patched", &items(&list)[0]["automountServiceAccountToken"], &json!(false))?;
    let collection = world.path("v1", "serviceaccounts", "");
    world.api.delete(&format!("{collection}?{selector}")).await?;
    watch.expect("DELETED", SOON, |account| name_of(account) == "account").await.map(drop)
}

async fn updated(world: World) -> Result<()> {
    let made = account(&world, "account", Some(false)).await?;
    same("made", &made["automountServiceAccountToken"], &json!(false))?;
    let path = world.path("v1", "serviceaccounts", "account");
    world
        .api
        .update(&path, |account| account["automountServiceAccountToken"] = json!(true))
        .await?;
    let found = world.api.get(&path).await?;
    same("updated", &found["automountServiceAccountToken"], &json!(true))
}
