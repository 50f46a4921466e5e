//! TLS and tokens, over real connections with certificates made here.

use std::{
    fs,
    path::{Path, PathBuf},
};

use futures::{StreamExt as _, stream};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use tonic::{
    Code, Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};
use tracer_inference::{Security, SecurityConfig};
use tracer_proto::v1::{self, router_client::RouterClient};

use crate::support::{
    Options, PLAIN, Server, TASK, eventually, pipeline_a, publish, registry, text,
};

/// An authority of the test's own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for this machine and its key.
    fn issue(&self) -> [String; 2] {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &self.0);
        [certificate.unwrap().pem(), key.serialize_pem()]
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

/// Files of a server.
struct Files {
    directory: TempDir,
    config: SecurityConfig,
}

impl Files {
    fn new() -> Self {
        let config = SecurityConfig {
            reload_interval_ms: 20,
            ..SecurityConfig::default()
        };
        Self {
            directory: tempfile::tempdir().unwrap(),
            config,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        // As rotations are done: the file is there whole or not at all.
        let (new, path) = (self.path("new"), self.path(name));
        fs::write(&new, text).unwrap();
        fs::rename(new, &path).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn tls(mut self, [cert, key]: &[String; 2]) -> Self {
        self.config.tls_cert = self.write("cert.pem", cert);
        self.config.tls_key = self.write("key.pem", key);
        self
    }

    fn client_ca(mut self, authority: &Authority) -> Self {
        self.config.client_ca = self.write("clients.pem", &authority.pem());
        self
    }

    fn tokens(mut self, lines: &str) -> Self {
        self.config.tokens = self.write("tokens", lines);
        self
    }

    async fn serve(&self) -> Server {
        let registry = registry();
        publish(&registry, pipeline_a()).await;
        let options = Options {
            security: Security::open(&self.config).unwrap(),
            ..Options::default()
        };
        Server::start(registry, options).await
    }
}

async fn connect(
    server: &Server,
    tls: ClientTlsConfig,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("https://{}", server.addr)).unwrap();
    endpoint.tls_config(tls)?.connect().await
}

fn trusting(authority: &Authority) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()))
}

async fn routes(channel: Channel) -> Result<String, Status> {
    let answer = RouterClient::new(channel).route(text(PLAIN)).await?;
    Ok(answer.into_inner().label)
}

/// Whether a route succeeds over a new connection. With TLS 1.3 a client learns that its
/// certificate was turned away only when it reads.
async fn answers(server: &Server, tls: ClientTlsConfig) -> bool {
    match connect(server, tls).await {
        Ok(channel) => routes(channel).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_for_those_who_trust_the_authority() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = Files::new().tls(&authority.issue());
    let server = files.serve().await;
    let channel = connect(&server, trusting(&authority)).await.unwrap();
    assert!(routes(channel).await.unwrap().starts_with("a:"));
    assert!(!answers(&server, trusting(&other)).await);
    let plain = Endpoint::from_shared(format!("http://{}", server.addr)).unwrap();
    if let Ok(channel) = plain.connect().await {
        assert!(routes(channel).await.is_err());
    }
    // Whoever connects and says nothing holds up nobody.
    let _silent = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    assert!(answers(&server, trusting(&authority)).await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mtls_wants_a_certificate_of_the_client() {
    let (authority, clients, other) = (Authority::new(), Authority::new(), Authority::new());
    let files = Files::new().tls(&authority.issue()).client_ca(&clients);
    let server = files.serve().await;
    let with =
        |[cert, key]: [String; 2]| trusting(&authority).identity(Identity::from_pem(cert, key));
    assert!(answers(&server, with(clients.issue())).await);
    assert!(!answers(&server, with(other.issue())).await);
    assert!(!answers(&server, trusting(&authority)).await);

    // The authority of the clients may change too.
    files.write("clients.pem", &other.pem());
    eventually("the new authority is known", async || {
        answers(&server, with(other.issue())).await.then_some(())
    })
    .await;
    assert!(!answers(&server, with(clients.issue())).await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_certificate_is_shown_and_open_connections_stay() {
    let (old, new) = (Authority::new(), Authority::new());
    let files = Files::new().tls(&old.issue());
    let server = files.serve().await;
    let open = connect(&server, trusting(&old)).await.unwrap();
    routes(open.clone()).await.unwrap();

    // Half of a rotation changes nothing, and is told.
    let [cert, key] = new.issue();
    files.write("cert.pem", &cert);
    eventually("the half rotation is seen", async || {
        let failures = server.metric("tracer_security_reload_failures_total");
        (failures == Some(1.0)).then_some(())
    })
    .await;
    assert!(answers(&server, trusting(&old)).await);
    assert!(!answers(&server, trusting(&new)).await);

    files.write("key.pem", &key);
    eventually("the new certificate is shown", async || {
        answers(&server, trusting(&new)).await.then_some(())
    })
    .await;
    assert!(!answers(&server, trusting(&old)).await);
    // This one could not be made again: its client trusts the old authority alone.
    routes(open).await.unwrap();
    server.stop().await;
}

/// `printf %s TOKEN | sha256sum`, of the tokens shop-token, ops-token, log-token, mail-token.
const SHOP: &str = "88cc4600551e64b7cb97dd7f63ebad405255e5d17bdd71ee9fe1ed5cc20d0b3b";
const OPS: &str = "d9310c002af91822beb0b3487d8b04f85bf6bf1f8a5496bff7d35fc7c5a29def";
const LOG: &str = "e0068f2bccfe61904f595b05831e960447b540dbadab97001cf1d405a1d1ee79";
const MAIL: &str = "12a0060b0ff5b2a4723ffbad2892851d03c4c25b5c86d2ab529151dcf12cccce";

fn lines() -> String {
    format!(
        "shop {SHOP} route desk,mail\nops {OPS} admin *\nlog {LOG} record desk\nmail {MAIL} route,record,admin mail\n"
    )
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

fn trace(task: &str) -> v1::RecordRequest {
    v1::RecordRequest {
        trace: Some(v1::Trace {
            task: task.to_owned(),
            input: "x".to_owned(),
            teacher: "y".to_owned(),
            ..v1::Trace::default()
        }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_do_what_its_line_says() {
    let files = Files::new().tokens(&lines());
    let server = files.serve().await;
    let mut client = server.client().await;
    let desk = || v1::GetPipelineRequest { task: TASK.into() };

    // Health is for everybody.
    let check = HealthCheckRequest::default();
    HealthClient::new(server.channel().await)
        .check(check)
        .await
        .unwrap();

    for (token, message) in [
        (
            "",
            "a token is needed: send the metadata `authorization: Bearer TOKEN`",
        ),
        ("wrong-token", "the bearer token is not known"),
    ] {
        let status = client.route(with(token, text(PLAIN))).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unauthenticated, message)
        );
        let status = client
            .list_pipelines(with(token, v1::ListPipelinesRequest {}))
            .await;
        assert_eq!(status.unwrap_err().code(), Code::Unauthenticated);
        let status = client.record(with(token, trace(TASK))).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(!format!("{status:?}").contains("wrong-token"));
    }

    let answer = client.route(with("shop-token", text(PLAIN))).await.unwrap();
    assert!(answer.into_inner().label.starts_with("a:"));
    client
        .get_pipeline(with("shop-token", desk()))
        .await
        .unwrap();
    client
        .get_pipeline(with("ops-token", desk()))
        .await
        .unwrap();
    let batch = |task: &str| v1::RouteBatchRequest {
        task: task.to_owned(),
        inputs: vec![text(PLAIN).input.unwrap()],
        ..v1::RouteBatchRequest::default()
    };
    client
        .route_batch(with("shop-token", batch(TASK)))
        .await
        .unwrap();
    // This one may record; that nothing is there to record to is another matter.
    let status = client
        .record(with("log-token", trace(TASK)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);

    let denied = [
        client.route(with("ops-token", text(PLAIN))).await.map(drop),
        client
            .route(with("mail-token", text(PLAIN)))
            .await
            .map(drop),
        client
            .route_batch(with("shop-token", batch("other")))
            .await
            .map(drop),
        client
            .route_batch(with("shop-token", batch("")))
            .await
            .map(drop),
        client
            .record(with("shop-token", trace(TASK)))
            .await
            .map(drop),
        client
            .record(with("log-token", trace("mail")))
            .await
            .map(drop),
        client.record(with("log-token", trace(""))).await.map(drop),
        client
            .get_pipeline(with("mail-token", desk()))
            .await
            .map(drop),
        client
            .get_pipeline(with("log-token", desk()))
            .await
            .map(drop),
        client
            .list_pipelines(with("log-token", v1::ListPipelinesRequest {}))
            .await
            .map(drop),
    ];
    for (index, denied) in denied.iter().enumerate() {
        let status = denied.as_ref().unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{index}: {status:?}");
        assert!(!status.message().contains("-token"), "{status:?}");
    }
    let message = denied[0].as_ref().unwrap_err().message();
    assert_eq!(
        message,
        r#"the token of "ops" does not have the scope route"#
    );
    let message = denied[1].as_ref().unwrap_err().message();
    assert_eq!(message, r#"the token of "mail" is not for task "desk""#);
    let count = format!(
        r#"tracer_requests_rejected_total{{reason="{}"}}"#,
        "permission_denied"
    );
    assert_eq!(server.metric(&count), Some(denied.len() as f64));
    let count = format!(
        r#"tracer_requests_rejected_total{{reason="{}"}}"#,
        "unauthenticated"
    );
    assert_eq!(server.metric(&count), Some(6.0));

    // A list has what the token is for, and no more.
    for (token, expected) in [("shop-token", 1), ("ops-token", 1), ("mail-token", 0)] {
        let request = with(token, v1::ListPipelinesRequest {});
        let listed = client.list_pipelines(request).await.unwrap().into_inner();
        assert_eq!(listed.pipelines.len(), expected, "{token}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_needs_a_token() {
    let files = Files::new().tokens(&lines());
    let server = files.serve().await;
    let mut client = ServerReflectionClient::new(server.channel().await);
    let ask = || {
        stream::iter([ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        }])
    };
    let status = client.server_reflection_info(ask()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let answer = client
        .server_reflection_info(with("log-token", ask()))
        .await
        .unwrap();
    assert!(answer.into_inner().next().await.unwrap().is_ok());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_read_again_and_a_bad_file_changes_nothing() {
    let files = Files::new().tokens(&lines());
    let server = files.serve().await;
    let mut client = server.client().await;
    let (questions, asked) = tokio::sync::mpsc::channel(1);
    let asked = tokio_stream::wrappers::ReceiverStream::new(asked);
    let mut answers = client
        .route_stream(with("shop-token", asked))
        .await
        .unwrap()
        .into_inner();
    questions.send(text(PLAIN)).await.unwrap();
    assert!(answers.next().await.unwrap().is_ok());

    files.write("tokens", "shop hunter2 route *\n");
    eventually("the bad file is seen", async || {
        let failures = server.metric("tracer_security_reload_failures_total");
        (failures == Some(1.0)).then_some(())
    })
    .await;
    client.route(with("shop-token", text(PLAIN))).await.unwrap();

    files.write("tokens", "");
    eventually("the emptied file is seen", async || {
        let failures = server.metric("tracer_security_reload_failures_total");
        (failures == Some(2.0)).then_some(())
    })
    .await;
    client.route(with("shop-token", text(PLAIN))).await.unwrap();

    files.write("tokens", &format!("log {LOG} route *\n"));
    eventually("the new tokens are known", async || {
        client
            .route(with("log-token", text(PLAIN)))
            .await
            .ok()
            .map(drop)
    })
    .await;
    let status = client
        .route(with("shop-token", text(PLAIN)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    // A stream that is open ends with the token.
    questions.send(text(PLAIN)).await.unwrap();
    let status = answers.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);

    fs::remove_file(files.path("tokens")).unwrap();
    eventually("the missing file is seen", async || {
        let failures = server.metric("tracer_security_reload_failures_total");
        (failures == Some(3.0)).then_some(())
    })
    .await;
    client.route(with("log-token", text(PLAIN))).await.unwrap();
    server.stop().await;
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let (one, two) = (Authority::new().issue(), Authority::new().issue());
    let open = |files: &Files| Security::open(&files.config).unwrap_err().to_string();
    let begins = |error: &str, key: &str, path: &Path| {
        let expected = format!("security.{key}: {}: ", path.display());
        assert!(error.starts_with(&expected), "{error}");
    };

    let swapped = Files::new().tls(&[one[0].clone(), two[1].clone()]);
    let error = open(&swapped);
    begins(&error, "tls_key", &swapped.path("key.pem"));
    assert!(error.contains("not the key of the certificate"), "{error}");

    let no_key = Files::new().tls(&[one[0].clone(), "-----BEGIN s3cret".to_owned()]);
    let error = open(&no_key);
    begins(&error, "tls_key", &no_key.path("key.pem"));
    assert!(!error.contains("s3cret"), "{error}");

    let no_cert = Files::new().tls(&[String::new(), one[1].clone()]);
    begins(&open(&no_cert), "tls_cert", &no_cert.path("cert.pem"));

    let mut no_ca = Files::new().tls(&one);
    no_ca.config.client_ca = "/nowhere/ca.pem".to_owned();
    begins(&open(&no_ca), "client_ca", Path::new("/nowhere/ca.pem"));

    let bad_tokens = Files::new().tokens("shop hunter2 route *");
    let error = open(&bad_tokens);
    begins(&error, "tokens", &bad_tokens.path("tokens"));
    assert!(!error.contains("hunter2"), "{error}");
}
