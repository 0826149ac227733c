//! exec, attach and port-forward: which process or ports a request means, and where the runtime
//! serves them. Refusals are the kubelet's.

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;

use super::streams::{self, Ask, Open, Purpose};
use super::{Body, Sources, text};
use crate::api::uid;
use crate::logs::decode_percent;
use crate::plan::Observed;
use crate::runtime::{ContainerState, RuntimeError, Streams};

/// What refuses a request.
type Refusal = (StatusCode, String);

/// Connects a client with a command, a container's process or ports of a pod.
pub(super) async fn stream(
    sources: &Sources,
    open: &Open,
    request: Request<Incoming>,
    parts: &[&str],
) -> Response<Body> {
    match find(sources, &request, parts).await {
        Ok((ask, purpose, url)) => streams::connect(request, ask, purpose, &url, open).await,
        Err((status, why)) => text(status, &why),
    }
}

/// What is asked for, and the streaming address for it.
async fn find(
    sources: &Sources,
    request: &Request<Incoming>,
    parts: &[&str],
) -> Result<(Ask, Purpose, String), Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let (namespace, pod_name, purpose) = match parts {
        ["exec" | "attach", namespace, pod, _] => {
            (namespace, pod, Purpose::Command(wanted(query)?))
        }
        ["portForward", namespace, pod] => (namespace, pod, Purpose::Ports(ports(query)?)),
        _ => return Err((StatusCode::NOT_FOUND, "404 page not found".to_owned())),
    };
    let ask = Ask::of(request.headers(), &purpose).map_err(bad)?;
    let pod = sources
        .index
        .find(namespace, pod_name)
        .ok_or_else(|| (StatusCode::NOT_FOUND, "pod does not exist".to_owned()))?;
    let url = match (&purpose, parts) {
        (Purpose::Ports(ports), _) => ports_url(sources, &pod, ports).await?,
        (Purpose::Command(wanted), ["exec", .., container]) => {
            let command: Vec<String> = values(query, "command").collect();
            if command.is_empty() {
                return Err(bad("you must specify at least one command for the container".into()));
            }
            let id = running(sources, &pod, container).await?;
            sources.runtime.exec_url(&id, &command, *wanted).await.map_err(failed)?
        }
        (Purpose::Command(wanted), [.., container]) => {
            let id = running(sources, &pod, container).await?;
            sources.runtime.attach_url(&id, *wanted).await.map_err(failed)?
        }
        _ => return Err((StatusCode::NOT_FOUND, "404 page not found".to_owned())),
    };
    Ok((ask, purpose, url))
}

fn bad(why: String) -> Refusal {
    (StatusCode::BAD_REQUEST, why)
}

fn failed(error: RuntimeError) -> Refusal {
    (StatusCode::INTERNAL_SERVER_ERROR, error.message)
}

/// The streams a query asks for.
fn wanted(query: &str) -> Result<Streams, Refusal> {
    let is_asked = |name: &str| values(query, name).any(|value| value == "1" || value == "true");
    let tty = is_asked("tty");
    let wanted = Streams {
        stdin: is_asked("input"),
        stdout: is_asked("output"),
        // A terminal has one way out.
        stderr: is_asked("error") && !tty,
        tty,
    };
    if !(wanted.stdin || wanted.stdout || wanted.stderr) {
        return Err(bad("you must specify at least 1 of stdin, stdout, stderr".to_owned()));
    }
    Ok(wanted)
}

/// The ports a query names, by repetition or with commas.
fn ports(query: &str) -> Result<Vec<u16>, Refusal> {
    let mut ports = Vec::new();
    for value in values(query, "port") {
        for port in value.split(',') {
            match port.trim().parse() {
                Ok(0) | Err(_) => return Err(bad(format!("unable to parse {port:?} as a port"))),
                Ok(port) => ports.push(port),
            }
        }
    }
    Ok(ports)
}

async fn ports_url(sources: &Sources, pod: &Pod, ports: &[u16]) -> Result<String, Refusal> {
    let sandboxes = sources.runtime.sandboxes(Some(uid(pod))).await.map_err(failed)?;
    let observed = Observed { sandboxes, containers: Vec::new() };
    let sandbox = observed.sandbox().ok_or_else(|| {
        let why = format!(
            "cannot find pod {:?} in namespace {:?}: it does not run",
            crate::api::name(pod),
            crate::api::namespace(pod)
        );
        (StatusCode::INTERNAL_SERVER_ERROR, why)
    })?;
    let ports: Vec<i32> = ports.iter().copied().map(i32::from).collect();
    sources.runtime.ports_url(&sandbox.id, &ports).await.map_err(failed)
}

/// The running instance of a container, by the runtime's identity.
async fn running(sources: &Sources, pod: &Pod, name: &str) -> Result<String, Refusal> {
    let containers = sources.runtime.containers(Some(uid(pod))).await.map_err(failed)?;
    let mut running = containers
        .into_iter()
        .filter(|container| container.name == name && container.state == ContainerState::Running);
    running.next().map(|container| container.id).ok_or_else(|| {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({name:?})"))
    })
}

/// All values of a parameter.
fn values<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = String> {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| decode_percent(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_no_stream_of_errors() {
        let all = wanted("input=1&output=1&error=1&tty=1").unwrap();
        assert_eq!(all, Streams { stdin: true, stdout: true, stderr: false, tty: true });
        assert_eq!(wanted("error=true").unwrap(), Streams { stderr: true, ..Streams::default() });
        for nothing in ["", "tty=1", "tty=1&error=1", "input=0"] {
            let (status, why) = wanted(nothing).unwrap_err();
            assert_eq!(status, StatusCode::BAD_REQUEST);
            assert_eq!(why, "you must specify at least 1 of stdin, stdout, stderr");
        }
    }

    #[test]
    fn ports_are_listed_either_way() {
        assert_eq!(ports("port=80&port=443").unwrap(), [80, 443]);
        assert_eq!(ports("port=80%2C443").unwrap(), [80, 443]);
        assert!(ports("").unwrap().is_empty());
        for wrong in ["port=0", "port=x", "port=65536"] {
            assert_eq!(ports(wrong).unwrap_err().0, StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn words_of_a_command_keep_their_blanks_and_order() {
        let words: Vec<_> =
            values("command=sh&x=1&command=-c&command=echo+a%20b", "command").collect();
        assert_eq!(words, ["sh", "-c", "echo a b"]);
    }
}
