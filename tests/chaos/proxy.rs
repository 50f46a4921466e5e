//! What stands between an aggregator and the S3 server, and does it harm.
//!
//! A connection carries one request. Heads pass unchanged but for `Connection`: the
//! signature covers `Host`, and the server checks it by the name it is given.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What is done to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// 503, slow down.
    Throttle,
    /// 500.
    Fail,
    /// The connection is reset, and the request does not reach the store.
    Reset,
    /// The request waits.
    Slow(Duration),
    /// The request waits until the mode is another one, and is reset then.
    Hang,
    /// A put reaches the store, and the connection is reset in place of the answer.
    LoseAnswer,
    /// Half of a put reaches the store.
    Tear,
}

impl Mode {
    fn strikes(self, put: bool) -> bool {
        match self {
            Self::Pass => false,
            Self::LoseAnswer | Self::Tear => put,
            _ => true,
        }
    }
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
    struck: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Proxy {
    /// Listens, and passes everything on until it is told otherwise.
    pub(crate) async fn start(store: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Pass);
        let struck = Arc::new(AtomicUsize::new(0));
        let count = struck.clone();
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (store, modes, count) = (store.clone(), modes.clone(), count.clone());
                tokio::spawn(async move {
                    // Connections break here all the time.
                    let _ = exchange(client, &store, modes, &count).await;
                });
            }
        });
        Self {
            address,
            mode,
            struck,
            server,
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// How many requests have been harmed.
    pub(crate) fn struck(&self) -> usize {
        self.struck.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn exchange(
    mut client: TcpStream,
    store: &str,
    mut modes: watch::Receiver<Mode>,
    struck: &AtomicUsize,
) -> io::Result<()> {
    let (head, body) = read_request(&mut client).await?;
    let mode = *modes.borrow_and_update();
    if mode.strikes(head.starts_with("PUT ")) {
        struck.fetch_add(1, Ordering::Relaxed);
        match mode {
            Mode::Pass => {}
            Mode::Throttle => return refuse(client, "503 Slow Down", "SlowDown").await,
            Mode::Fail => {
                return refuse(client, "500 Internal Server Error", "InternalError").await;
            }
            Mode::Reset => return reset(&client),
            Mode::Slow(by) => tokio::time::sleep(by).await,
            Mode::Hang => {
                let _ = modes.changed().await;
                return reset(&client);
            }
            Mode::LoseAnswer => {
                forward(store, &head, &body).await?;
                return reset(&client);
            }
            Mode::Tear => {
                let mut upstream = TcpStream::connect(store).await?;
                upstream.write_all(head.as_bytes()).await?;
                upstream.write_all(&body[..body.len() / 2]).await?;
                upstream.flush().await?;
                reset(&upstream)?;
                drop(upstream);
                return reset(&client);
            }
        }
    }
    let answer = forward(store, &head, &body).await?;
    client.write_all(&answer).await?;
    client.shutdown().await
}

/// The head, made to end the connection, and the body.
async fn read_request(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let mut body = bytes.split_off(end + 4);
    let text = String::from_utf8_lossy(&bytes[..end]);
    let mut head = String::new();
    let mut length = 0;
    for line in text.split("\r\n") {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        if name.eq_ignore_ascii_case("connection") {
            continue;
        }
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        head.push_str(line);
        head.push_str("\r\n");
    }
    head.push_str("Connection: close\r\n\r\n");
    while body.len() < length {
        if client.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((head, body))
}

/// The whole answer of the store, which closes the connection after it.
async fn forward(store: &str, head: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut upstream = TcpStream::connect(store).await?;
    upstream.write_all(head.as_bytes()).await?;
    upstream.write_all(body).await?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).await?;
    Ok(answer)
}

async fn refuse(mut client: TcpStream, status: &str, code: &str) -> io::Result<()> {
    let body = format!("<Error><Code>{code}</Code><Message>chaos</Message></Error>");
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await
}

/// Makes the end of a stream, which comes now, a reset.
fn reset(stream: &TcpStream) -> io::Result<()> {
    stream.set_zero_linger()
}
