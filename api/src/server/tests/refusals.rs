//! Every bad request gets the Status that Kubernetes gives, word for word.

use http::Method;

use super::*;

#[expect(clippy::too_many_lines, clippy::type_complexity, reason = "it is a table")]
#[tokio::test]
async fn bad_requests_get_the_words_of_kubernetes() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", json!({})).await;
    let map = |name: &str| json!({ "metadata": { "name": name } });
    let table: Vec<(Method, &str, Value, (u16, &str, &str))> = vec![
        (
            Method::GET,
            "/api/v1/namespaces/default/configmaps/b",
            Value::Null,
            (404, "NotFound", "configmaps \"b\" not found"),
        ),
        (
            Method::GET,
            "/apis/apps/v1/namespaces/default/deployments/b",
            Value::Null,
            (404, "NotFound", "deployments.apps \"b\" not found"),
        ),
        (
            Method::GET,
            "/api/v1/namespaces/default/gadgets",
            Value::Null,
            (404, "NotFound", "the server could not find the requested resource"),
        ),
        (
            Method::POST,
            CONFIG_MAPS,
            map("a"),
            (409, "AlreadyExists", "configmaps \"a\" already exists"),
        ),
        (
            Method::POST,
            "/api/v1/namespaces/nowhere/configmaps",
            map("a"),
            (404, "NotFound", "namespaces \"nowhere\" not found"),
        ),
        (
            Method::POST,
            CONFIG_MAPS,
            json!({ "metadata": { "name": "b", "resourceVersion": "7" } }),
            (400, "BadRequest", "resourceVersion should not be set on objects to be created"),
        ),
        (
            Method::PUT,
            "/api/v1/namespaces/default/configmaps/a",
            map("b"),
            (
                400,
                "BadRequest",
                "the name of the object (b) does not match the name on the URL (a)",
            ),
        ),
        (
            Method::PUT,
            "/api/v1/namespaces/default/configmaps/a",
            json!({ "metadata": { "name": "a", "resourceVersion": "1" } }),
            (
                409,
                "Conflict",
                "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; \
                 please apply your changes to the latest version and try again",
            ),
        ),
        (
            Method::GET,
            "/api/v1/pods?labelSelector=a%20in%20b",
            Value::Null,
            (400, "BadRequest", "unable to parse requirement: found 'b' expected: '('"),
        ),
        (
            Method::GET,
            "/api/v1/pods?fieldSelector=spec.color%3Dred",
            Value::Null,
            (400, "BadRequest", "field label not supported: spec.color"),
        ),
        (
            Method::DELETE,
            "/api/v1/namespaces/default",
            Value::Null,
            (
                403,
                "Forbidden",
                "namespaces \"default\" is forbidden: this namespace may not be deleted",
            ),
        ),
        (
            Method::DELETE,
            "/api/v1/namespaces/default/configmaps/a",
            json!({ "preconditions": { "uid": "x" } }),
            (409, "Conflict", ""),
        ),
        (
            Method::PATCH,
            "/api/v1/namespaces/default/configmaps/a",
            json!({}),
            (
                415,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json, application/apply-patch+yaml",
            ),
        ),
        (
            Method::DELETE,
            "/api/v1/namespaces",
            Value::Null,
            (
                405,
                "MethodNotAllowed",
                "deletecollection is not supported on resources of kind \"namespaces\"",
            ),
        ),
    ];
    for (method, path, body, (code, reason, message)) in table {
        let answer = cluster.call(method.clone(), path, &body).await;
        let found = answer.refusal();
        assert_eq!((found.0, found.1), (code, reason), "{method} {path}: {}", answer.body);
        if !message.is_empty() {
            assert_eq!(found.2, message, "{method} {path}");
        }
        assert_eq!(answer.body["kind"], "Status", "{method} {path}");
        assert_eq!(answer.body["code"], code, "{method} {path}");
    }
    let untouched = cluster.get("/api/v1/namespaces/default/configmaps").await.ok();
    assert_eq!(untouched["items"].as_array().map(Vec::len), Some(1), "nothing half done (A3)");
}

#[tokio::test]
async fn invalid_metadata_names_each_field() {
    let cluster = Cluster::start().await;
    let body = json!({ "metadata": { "name": "A_b", "labels": { "k": "a b" } } });
    let answer = cluster.post(CONFIG_MAPS, &body).await;
    assert_eq!(answer.code, 422);
    let fields: Vec<&str> = answer.body["details"]["causes"]
        .as_array()
        .expect("causes")
        .iter()
        .filter_map(|cause| cause["field"].as_str())
        .collect();
    assert_eq!(fields, ["metadata.name", "metadata.labels"]);
}

#[tokio::test]
async fn an_object_that_is_too_large_is_refused_and_not_stored() {
    let cluster = Cluster::start().await;
    for (bytes, limit) in [(3 << 19, "1572864"), (4 << 20, "3145728")] {
        let mut big = pod("big");
        big["spec"]["containers"][0]["command"] = json!(["A".repeat(bytes)]);
        let answer = cluster.post(PODS, &big).await;
        let message = format!("Request entity too large: limit is {limit}");
        assert_eq!(answer.refusal(), (413, "RequestEntityTooLarge", message.as_str()));
        assert_eq!(cluster.get(&format!("{PODS}/big")).await.code, 404);
    }
}

#[tokio::test]
async fn strangers_see_health_and_version_and_nothing_else() {
    let cluster = Cluster::start().await;
    let ask = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        read(cluster.answer(request).await).await
    };
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(ask(path).await.code, 200, "{path}");
    }
    let answer = ask("/api/v1/namespaces/default/pods").await;
    assert_eq!(
        answer.refusal(),
        (
            403,
            "Forbidden",
            "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API \
             group \"\" in the namespace \"default\""
        )
    );
    let answer = ask("/metrics").await;
    assert_eq!(
        answer.refusal().2,
        "forbidden: User \"system:anonymous\" cannot get path \"/metrics\""
    );
}

#[tokio::test]
async fn what_is_asked_for_in_no_form_we_have_is_not_acceptable() {
    let cluster = Cluster::start().await;
    let ask = async |accept: &str| {
        let request = Request::get(PODS)
            .header("accept", accept)
            .extension(Arc::new(User::authenticated("admin", &[MASTERS])))
            .body(Body::empty())
            .expect("a request");
        read(cluster.answer(request).await).await
    };
    assert_eq!(ask("application/xml").await.code, 406);
    let table = ask("application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
    assert_eq!(table["kind"], "Table");
    let partial =
        ask("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await.ok();
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
}
