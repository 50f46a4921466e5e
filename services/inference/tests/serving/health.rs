//! Standard health and reflection.

use futures::{StreamExt as _, stream};
use tokio::net::{TcpListener, TcpStream};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::support::{Options, PATIENCE, Server, eventually, registry};

#[tokio::test]
async fn health_follows_readiness() {
    let server = Server::start(registry(), Options::patient()).await;
    let client = HealthClient::new(server.channel().await);
    for service in ["", "tracer.v1.Router"] {
        eventually("the service is healthy", async || {
            let request = HealthCheckRequest {
                service: service.into(),
            };
            let answer = client.clone().check(request).await.unwrap().into_inner();
            (answer.status() == ServingStatus::Serving).then_some(())
        })
        .await;
    }
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let mut watch = client.clone().watch(request).await.unwrap().into_inner();
    assert_eq!(
        watch.next().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    server.shutdown.cancel();
    assert_eq!(
        watch.next().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    assert_eq!(
        server.health.ready(),
        Err(vec!["inference: shutting down".to_owned()])
    );
    // A watcher does not hold up the end.
    let end = tokio::time::timeout(PATIENCE, watch.next()).await;
    assert!(end.expect("the watch ends").is_none());
    let addr = server.addr;
    server.stop().await;
    drop((watch, client));
    assert!(TcpStream::connect(addr).await.is_err());
    TcpListener::bind(addr)
        .await
        .expect("the port is free again");
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let server = Server::start(registry(), Options::default()).await;
    let mut client = ServerReflectionClient::new(server.channel().await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client
        .server_reflection_info(stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers
        .next()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else {
        panic!("not a list: {answer:?}");
    };
    let names: Vec<String> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    for name in ["tracer.v1.Router", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|listed| listed == name), "{names:?}");
    }
    drop((answers, client));
    server.stop().await;
}
