//! Drives a runtime over the Container Runtime Interface, v1.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::{
    Container, ContainerFigures, ContainerSpec, Credentials, ExecOutput, Image, Listed, Resources,
    Runtime, RuntimeError, RuntimeErrorKind, RuntimeStatus, RuntimeVersion, Sandbox,
    SandboxFigures, SandboxSpec, Streams,
};

mod convert;
mod figures;

#[expect(unreachable_pub, reason = "generated from the CRI definition")]
#[allow(clippy::all, clippy::pedantic, reason = "generated")]
mod proto {
    tonic::include_proto!("runtime.v1");
}

use proto::image_service_client::ImageServiceClient;
use proto::runtime_service_client::RuntimeServiceClient;

/// Longest wait for a call that looks something up.
const QUERY_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for a call that makes or removes something; a loaded machine is slow.
const WORK_DEADLINE: Duration = Duration::from_secs(240);
/// Longest wait for a pull.
const PULL_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// Beyond a stop's or a command's own time: what the runtime needs to notice.
const SLACK: Duration = Duration::from_secs(120);
/// Answers may be large: lists of hundreds of containers, output of commands.
const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A runtime behind a Unix socket. Connects when first used and again after the runtime restarted.
#[derive(Clone, Debug)]
pub struct Cri {
    channel: Channel,
}

impl Cri {
    /// Talks to the runtime on `socket`.
    pub fn new(socket: &Path) -> Self {
        let socket: PathBuf = socket.to_path_buf();
        // The address is required and never used: the connector goes to the socket.
        let channel = Endpoint::from_static("http://runtime.invalid").connect_with_connector_lazy(
            service_fn(move |_| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            }),
        );
        Self { channel }
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn image_service(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// A message with a deadline: in the header for the runtime, and enforced here (R11).
fn request<T>(message: T, deadline: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(deadline);
    request
}

async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>> + Send,
) -> Result<T, RuntimeError> {
    match tokio::time::timeout(deadline + Duration::from_secs(1), call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(refused(&status)),
        Err(_) => Err(RuntimeError {
            kind: RuntimeErrorKind::Deadline,
            message: format!("the runtime did not answer within {} s", deadline.as_secs()),
        }),
    }
}

fn refused(status: &tonic::Status) -> RuntimeError {
    use tonic::Code;
    let kind = match status.code() {
        Code::NotFound => RuntimeErrorKind::NotFound,
        Code::Unavailable => RuntimeErrorKind::Unavailable,
        Code::DeadlineExceeded | Code::Cancelled => RuntimeErrorKind::Deadline,
        _ => RuntimeErrorKind::Failed,
    };
    // The form users know from the kubelet, for statuses and events.
    let message = format!("rpc error: code = {:?} desc = {}", status.code(), status.message());
    RuntimeError { kind, message }
}

#[async_trait]
impl Runtime for Cri {
    async fn version(&self) -> Result<RuntimeVersion, RuntimeError> {
        let message = proto::VersionRequest { version: "v1".to_owned() };
        let mut client = self.runtime();
        let answer =
            within(QUERY_DEADLINE, client.version(request(message, QUERY_DEADLINE))).await?;
        Ok(RuntimeVersion { name: answer.runtime_name, version: answer.runtime_version })
    }

    async fn status(&self) -> Result<RuntimeStatus, RuntimeError> {
        let message = proto::StatusRequest { verbose: false };
        let mut client = self.runtime();
        let answer =
            within(QUERY_DEADLINE, client.status(request(message, QUERY_DEADLINE))).await?;
        Ok(convert::status(answer))
    }

    async fn image(&self, name: &str) -> Result<Option<Image>, RuntimeError> {
        let message =
            proto::ImageStatusRequest { image: Some(convert::image_spec(name)), verbose: false };
        let mut client = self.image_service();
        let answer =
            within(QUERY_DEADLINE, client.image_status(request(message, QUERY_DEADLINE))).await?;
        Ok(answer.image.map(convert::image))
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        let message = proto::ListImagesRequest { filter: None };
        let mut client = self.image_service();
        let answer =
            within(QUERY_DEADLINE, client.list_images(request(message, QUERY_DEADLINE))).await?;
        Ok(answer.images.into_iter().map(convert::image).collect())
    }

    async fn remove_image(&self, id: &str) -> Result<(), RuntimeError> {
        let message = proto::RemoveImageRequest { image: Some(convert::image_spec(id)) };
        let mut client = self.image_service();
        gone_is_fine(
            within(WORK_DEADLINE, client.remove_image(request(message, WORK_DEADLINE))).await,
        )
    }

    async fn image_folder(&self) -> Result<Option<PathBuf>, RuntimeError> {
        let message = proto::ImageFsInfoRequest {};
        let mut client = self.image_service();
        let call = client.image_fs_info(request(message, QUERY_DEADLINE));
        let all = within(QUERY_DEADLINE, call).await?.image_filesystems;
        let folder = all.into_iter().find_map(|one| Some(one.fs_id?.mountpoint));
        Ok(folder.filter(|folder| !folder.is_empty()).map(PathBuf::from))
    }

    async fn pull(&self, name: &str, shown: Option<&Credentials>) -> Result<(), RuntimeError> {
        let message = proto::PullImageRequest {
            image: Some(convert::image_spec(name)),
            auth: shown.map(convert::auth),
            sandbox_config: None,
        };
        let mut client = self.image_service();
        let call = client.pull_image(request(message, PULL_DEADLINE));
        within(PULL_DEADLINE, Box::pin(call)).await?;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Listed>, RuntimeError> {
        let mut client = self.runtime();
        let sandboxes = proto::ListPodSandboxRequest { filter: None };
        let sandboxes =
            within(QUERY_DEADLINE, client.list_pod_sandbox(request(sandboxes, QUERY_DEADLINE)))
                .await?;
        let containers = proto::ListContainersRequest { filter: None };
        let containers =
            within(QUERY_DEADLINE, client.list_containers(request(containers, QUERY_DEADLINE)))
                .await?;
        Ok(convert::listed(sandboxes.items, containers.containers))
    }

    async fn sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<Sandbox>, RuntimeError> {
        let message = proto::ListPodSandboxRequest {
            filter: pod_uid.map(|uid| proto::PodSandboxFilter {
                label_selector: convert::uid_selector(uid),
                ..Default::default()
            }),
        };
        let mut client = self.runtime();
        let answer =
            within(QUERY_DEADLINE, client.list_pod_sandbox(request(message, QUERY_DEADLINE)))
                .await?;
        let mut sandboxes = Vec::with_capacity(answer.items.len());
        for item in answer.items {
            let message =
                proto::PodSandboxStatusRequest { pod_sandbox_id: item.id.clone(), verbose: false };
            let status =
                within(QUERY_DEADLINE, client.pod_sandbox_status(request(message, QUERY_DEADLINE)))
                    .await;
            match status {
                Ok(answer) => sandboxes.extend(answer.status.map(convert::sandbox)),
                // Removed between the two calls.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sandboxes)
    }

    async fn containers(&self, pod_uid: Option<&str>) -> Result<Vec<Container>, RuntimeError> {
        let message = proto::ListContainersRequest {
            filter: pod_uid.map(|uid| proto::ContainerFilter {
                label_selector: convert::uid_selector(uid),
                ..Default::default()
            }),
        };
        let mut client = self.runtime();
        let answer =
            within(QUERY_DEADLINE, client.list_containers(request(message, QUERY_DEADLINE)))
                .await?;
        let mut containers = Vec::with_capacity(answer.containers.len());
        for item in answer.containers {
            let message =
                proto::ContainerStatusRequest { container_id: item.id.clone(), verbose: false };
            let status =
                within(QUERY_DEADLINE, client.container_status(request(message, QUERY_DEADLINE)))
                    .await;
            match status {
                Ok(answer) => {
                    let sandbox_id = item.pod_sandbox_id;
                    containers
                        .extend(answer.status.map(|status| convert::container(sandbox_id, status)));
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(containers)
    }

    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<String, RuntimeError> {
        let message = proto::RunPodSandboxRequest {
            config: Some(convert::sandbox_config(spec)),
            runtime_handler: String::new(),
        };
        let mut client = self.runtime();
        let call = client.run_pod_sandbox(request(message, WORK_DEADLINE));
        let answer = within(WORK_DEADLINE, Box::pin(call)).await?;
        Ok(answer.pod_sandbox_id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let message = proto::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let mut client = self.runtime();
        gone_is_fine(
            within(WORK_DEADLINE, client.stop_pod_sandbox(request(message, WORK_DEADLINE))).await,
        )
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let message = proto::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let mut client = self.runtime();
        gone_is_fine(
            within(WORK_DEADLINE, client.remove_pod_sandbox(request(message, WORK_DEADLINE))).await,
        )
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        sandbox: &SandboxSpec,
        spec: &ContainerSpec,
    ) -> Result<String, RuntimeError> {
        let message = proto::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(convert::container_config(spec)),
            sandbox_config: Some(convert::sandbox_config(sandbox)),
        };
        let mut client = self.runtime();
        let call = client.create_container(request(message, WORK_DEADLINE));
        let answer = within(WORK_DEADLINE, Box::pin(call)).await?;
        Ok(answer.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let message = proto::StartContainerRequest { container_id: id.to_owned() };
        let mut client = self.runtime();
        within(WORK_DEADLINE, client.start_container(request(message, WORK_DEADLINE))).await?;
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let message = proto::StopContainerRequest {
            container_id: id.to_owned(),
            timeout: i64::try_from(grace.as_secs()).unwrap_or(i64::MAX),
        };
        let deadline = grace.saturating_add(SLACK);
        let mut client = self.runtime();
        gone_is_fine(within(deadline, client.stop_container(request(message, deadline))).await)
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let message = proto::RemoveContainerRequest { container_id: id.to_owned() };
        let mut client = self.runtime();
        gone_is_fine(
            within(WORK_DEADLINE, client.remove_container(request(message, WORK_DEADLINE))).await,
        )
    }

    async fn exec(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let message = proto::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            timeout: i64::try_from(timeout.as_secs().max(1)).unwrap_or(i64::MAX),
        };
        let deadline = timeout.saturating_add(QUERY_DEADLINE);
        let mut client = self.runtime();
        let answer = within(deadline, client.exec_sync(request(message, deadline))).await?;
        Ok(convert::exec_output(&answer))
    }

    async fn exec_url(
        &self,
        id: &str,
        command: &[String],
        streams: Streams,
    ) -> Result<String, RuntimeError> {
        let Streams { stdin, stdout, stderr, tty } = streams;
        let message = proto::ExecRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            tty,
            stdin,
            stdout,
            stderr: stderr && !tty,
        };
        let mut client = self.runtime();
        let answer = within(QUERY_DEADLINE, client.exec(request(message, QUERY_DEADLINE))).await?;
        Ok(answer.url)
    }

    async fn attach_url(&self, id: &str, streams: Streams) -> Result<String, RuntimeError> {
        let Streams { stdin, stdout, stderr, tty } = streams;
        let container_id = id.to_owned();
        let stderr = stderr && !tty;
        let message = proto::AttachRequest { container_id, stdin, tty, stdout, stderr };
        let mut client = self.runtime();
        let answer =
            within(QUERY_DEADLINE, client.attach(request(message, QUERY_DEADLINE))).await?;
        Ok(answer.url)
    }

    async fn ports_url(&self, sandbox_id: &str, ports: &[i32]) -> Result<String, RuntimeError> {
        let message = proto::PortForwardRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            port: ports.to_vec(),
        };
        let mut client = self.runtime();
        let answer =
            within(QUERY_DEADLINE, client.port_forward(request(message, QUERY_DEADLINE))).await?;
        Ok(answer.url)
    }

    async fn update_container(&self, id: &str, bounds: &Resources) -> Result<(), RuntimeError> {
        let message = proto::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(convert::resources(bounds)),
            ..Default::default()
        };
        let mut client = self.runtime();
        let call = client.update_container_resources(request(message, QUERY_DEADLINE));
        within(QUERY_DEADLINE, call).await?;
        Ok(())
    }

    async fn memory_used(&self, id: &str) -> Result<Option<u64>, RuntimeError> {
        let message = proto::ContainerStatsRequest { container_id: id.to_owned() };
        let mut client = self.runtime();
        let call = client.container_stats(request(message, QUERY_DEADLINE));
        let memory = within(QUERY_DEADLINE, call).await?.stats.and_then(|stats| stats.memory);
        Ok(memory.and_then(|memory| memory.working_set_bytes).map(|bytes| bytes.value))
    }

    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        let message = proto::ReopenContainerLogRequest { container_id: id.to_owned() };
        let mut client = self.runtime();
        within(QUERY_DEADLINE, client.reopen_container_log(request(message, QUERY_DEADLINE)))
            .await?;
        Ok(())
    }

    async fn container_figures(&self) -> Result<Vec<ContainerFigures>, RuntimeError> {
        let message = proto::ListContainerStatsRequest { filter: None };
        let mut client = self.runtime();
        let answer =
            within(QUERY_DEADLINE, client.list_container_stats(request(message, QUERY_DEADLINE)))
                .await?;
        Ok(answer.stats.into_iter().filter_map(figures::container).collect())
    }

    async fn sandbox_figures(&self) -> Result<Vec<SandboxFigures>, RuntimeError> {
        let message = proto::ListPodSandboxStatsRequest { filter: None };
        let mut client = self.runtime();
        let answer =
            within(QUERY_DEADLINE, client.list_pod_sandbox_stats(request(message, QUERY_DEADLINE)))
                .await?;
        Ok(answer.stats.into_iter().filter_map(figures::sandbox).collect())
    }
}

fn gone_is_fine<T>(answer: Result<T, RuntimeError>) -> Result<(), RuntimeError> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}
