//! `tracer health`: asks a running service, as a container's health check does.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{config::Config, host::reachable, output};

/// More of an answer than there is to it.
const MOST: u64 = 64 << 10;

/// Asks a running service.
#[derive(Args, Debug)]
pub(crate) struct HealthArgs {
    /// What to ask [default: /readyz at the configured listen.http, on this machine]
    #[arg(long, value_name = "URL", conflicts_with = "live")]
    url: Option<String>,
    /// Ask whether it is live, and not whether it is ready
    #[arg(long)]
    live: bool,
    /// How long the answer may take, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
}

/// Runs the command.
pub(crate) async fn run(args: HealthArgs, config: &Config) -> anyhow::Result<()> {
    let (address, path) = if let Some(url) = &args.url {
        parse(url)?
    } else {
        let path = if args.live { "/livez" } else { "/readyz" };
        (reachable(config.listen.http).to_string(), path.to_owned())
    };
    let limit = Duration::from_millis(args.timeout_ms);
    let asked = timeout(limit, ask(&address, &path));
    let (status, body) = asked
        .await
        .with_context(|| format!("{address} did not answer within {} ms", args.timeout_ms))?
        .with_context(|| format!("nothing answers at {address}"))?;
    // Every condition on one line: it is kept by whoever runs the check.
    let said = body.trim().replace('\n', "; ");
    if status != 200 {
        bail!("{address}{path} answers {status}: {said}");
    }
    output::line(said);
    Ok(())
}

/// Host with port, and path, of an address such as `http://127.0.0.1:8080/readyz`.
fn parse(url: &str) -> anyhow::Result<(String, String)> {
    let rest = url
        .strip_prefix("http://")
        .with_context(|| format!("{url:?} is no address that begins with http://"))?;
    let (host, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/readyz"),
    };
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| {
        !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    if host.is_empty() || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        bail!("{url:?} is no address such as http://127.0.0.1:8080/readyz");
    }
    let port = if has_port { "" } else { ":80" };
    Ok((format!("{host}{port}"), path.to_owned()))
}

/// The status and the body of an answer.
async fn ask(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let mut request = String::new();
    write!(
        request,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1)?.trim().parse().ok());
    Ok((status.context("the answer is no HTTP")?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use tracer_telemetry::{Health, Metrics, serve_http_with};

    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (url, host, path) in [
            ("http://a:1/livez", "a:1", "/livez"),
            ("http://a:1", "a:1", "/readyz"),
            ("http://a/readyz", "a:80", "/readyz"),
            ("http://[::1]:8/x", "[::1]:8", "/x"),
        ] {
            assert_eq!(parse(url).unwrap(), (host.to_owned(), path.to_owned()));
        }
        for url in [
            "https://a",
            "a:1",
            "http://",
            "http://a b",
            "http://a/\r\nX: y",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_service_is_asked_whether_it_is_ready() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::default();
        config.listen.http = listener.local_addr().unwrap();
        let (metrics, health) = (Metrics::new(), Health::new());
        let condition = health.condition("store");
        let shutdown = tokio_util::sync::CancellationToken::new();
        let serve = serve_http_with(
            listener,
            metrics,
            health,
            axum::Router::new(),
            shutdown.clone(),
        );
        let server = tokio::spawn(serve);
        let args = |live, url| HealthArgs {
            url,
            live,
            timeout_ms: 60_000,
        };
        let unready = run(args(false, None), &config).await.unwrap_err();
        let said = unready.to_string();
        assert!(
            said.contains("503") && said.contains("store: starting"),
            "{said}"
        );
        run(args(true, None), &config).await.unwrap();
        condition.set_ready();
        run(args(false, None), &config).await.unwrap();
        let url = format!("http://{}/nothing", config.listen.http);
        let error = run(args(false, Some(url)), &config).await.unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
        shutdown.cancel();
        server.await.unwrap().unwrap();
        let error = run(args(false, None), &config).await.unwrap_err();
        assert!(error.to_string().contains("nothing answers"), "{error}");
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_not_waited_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::default();
        config.listen.http = listener.local_addr().unwrap();
        let args = HealthArgs {
            url: None,
            live: true,
            timeout_ms: 50,
        };
        let error = run(args, &config).await.unwrap_err();
        assert!(error.to_string().contains("within 50 ms"), "{error}");
    }
}
