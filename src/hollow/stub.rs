//! An API server for the tests of who calls one: it notes what it is asked, and answers what it is
//! told to.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::api::Api;
use crate::kubeconfig::Kubeconfig;
use crate::pki::{Authority, Profile};

/// The server; it ends with this.
pub(crate) struct Stub {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Stub {
    /// Begins; `answer` is given method and path and returns the body.
    pub(crate) async fn start(answer: fn(&str, &str) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let notes = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&notes), answer));
            }
        });
        Self { url, asked, task }
    }

    /// A way to it.
    pub(crate) fn api(&self) -> Api {
        let authority = Authority::create("test").unwrap();
        let kubeconfig = Kubeconfig {
            server: self.url.clone(),
            ca_pem: authority.cert_pem().to_owned(),
            identity: authority.issue(&Profile::admin()).unwrap(),
        };
        Api::new(&kubeconfig, vec![self.url.clone()]).unwrap()
    }

    /// What it was asked, as `METHOD PATH`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    notes: Arc<Mutex<Vec<String>>>,
    answer: fn(&str, &str) -> String,
) -> std::io::Result<()> {
    let mut text = String::new();
    loop {
        while !is_whole(&text) {
            let mut piece = [0; 4096];
            match stream.read(&mut piece).await? {
                0 => return Ok(()),
                length => text.push_str(&String::from_utf8_lossy(&piece[..length])),
            }
        }
        let mut words = text.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        text.clear();
        let body = answer(&method, &path);
        notes.lock().push(format!("{method} {path}"));
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await?;
    }
}

/// Whether a request is there with its body.
fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    body.len() >= length.unwrap_or(0)
}
