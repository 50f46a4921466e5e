//! An HTTP server of the test's own.

#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    /// Null where there is none.
    pub(crate) body: Value,
}

/// What is answered.
pub(crate) struct Reply {
    /// 0 is no answer at all.
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) location: String,
}

impl From<(u16, String)> for Reply {
    fn from((status, body): (u16, String)) -> Self {
        Self {
            status,
            body: body.into_bytes(),
            location: "/elsewhere".to_owned(),
        }
    }
}

type Answer = Box<dyn Fn(usize, &Asked) -> Reply + Send + Sync>;

/// A server that answers by a function of the number of the request and the request.
pub(crate) struct Server {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    pub(crate) came: Arc<Notify>,
}

impl Server {
    pub(crate) async fn start<R: Into<Reply>>(
        answer: impl Fn(usize, &Asked) -> R + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let came = Arc::<Notify>::default();
        let (all, told) = (Arc::clone(&asked), Arc::clone(&came));
        let answer: Arc<Answer> =
            Arc::new(Box::new(move |number, asked| answer(number, asked).into()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (all, told, answer) = (all.clone(), told.clone(), answer.clone());
                tokio::spawn(async move { serve(stream, &all, &told, &answer).await });
            }
        });
        Self { url, asked, came }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    stream: TcpStream,
    all: &Mutex<Vec<Asked>>,
    told: &Notify,
    answer: &Answer,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let path = line.split(' ').nth(1)?.to_owned();
        let (mut length, mut authorization) = (0, None);
        loop {
            line.clear();
            stream.read_line(&mut line).await.ok()?;
            let Some((name, value)) = line.trim().split_once(": ") else {
                break;
            };
            match name.to_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap(),
                "authorization" => authorization = Some(value.to_owned()),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let request = Asked {
            path,
            authorization,
            body: serde_json::from_slice(&body).unwrap_or_default(),
        };
        let number = {
            let mut all = all.lock().unwrap();
            all.push(request.clone());
            all.len()
        };
        told.notify_one();
        let reply = answer(number, &request);
        if reply.status == 0 {
            return std::future::pending().await;
        }
        let head = format!(
            "HTTP/1.1 {} x\r\nContent-Length: {}\r\nLocation: {}\r\n\r\n",
            reply.status,
            reply.body.len(),
            reply.location
        );
        let mut answer = head.into_bytes();
        answer.extend(reply.body);
        stream.write_all(&answer).await.ok()?;
    }
}
