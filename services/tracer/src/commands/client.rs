//! The connection of the commands that ask a server.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tracer_proto::v1::router_client::RouterClient;

/// How long a server may take to accept the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How a server knows the client, and the client the server.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ClientArgs {
    /// PEM file of the authority of the server's certificate; asks over TLS
    /// [default: for https:// the system's authorities]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file of the client's certificate, where the server asks for one
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// File with the bearer token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A client of the router that sends its token along.
pub(crate) type Client = RouterClient<InterceptedService<Channel, Bearer>>;

impl ClientArgs {
    /// Whether the connection is to be private though the address does not say so.
    fn wants_tls(&self) -> bool {
        self.ca.is_some() || self.cert.is_some()
    }

    /// Connects. Without a scheme the address is `https://` where a file of TLS is
    /// given, else `http://`.
    pub(crate) async fn connect(&self, addr: &str) -> anyhow::Result<Client> {
        // `host:port` is what people type.
        let url = match addr.split_once("://") {
            Some(("http", _)) if self.wants_tls() => {
                bail!("{addr} is not private: --ca and --cert need an address with https://")
            }
            Some(_) => addr.to_owned(),
            None if self.wants_tls() => format!("https://{addr}"),
            None => format!("http://{addr}"),
        };
        let mut endpoint = Endpoint::from_shared(url.clone())
            .with_context(|| format!("{addr:?} is not an address like http://127.0.0.1:50051"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT);
        if url.starts_with("https://") {
            let tls = self.tls()?;
            endpoint = endpoint
                .tls_config(tls)
                .context("the files of TLS cannot be used")?;
        }
        let bearer = Bearer(self.token()?);
        let channel = endpoint.connect().await.with_context(|| {
            format!("no Tracer server answers at {addr}: is `tracer up` running?")
        })?;
        Ok(RouterClient::with_interceptor(channel, bearer))
    }

    fn tls(&self) -> anyhow::Result<ClientTlsConfig> {
        let tls = match &self.ca {
            Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        Ok(match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => tls.identity(Identity::from_pem(read(cert)?, read(key)?)),
            _ => tls,
        })
    }

    fn token(&self) -> anyhow::Result<Option<MetadataValue<Ascii>>> {
        let Some(file) = &self.token_file else {
            return Ok(None);
        };
        let token = read(file)?;
        let token = std::str::from_utf8(&token).unwrap_or_default().trim();
        let value = format!("Bearer {token}").parse();
        match value {
            Ok(value) if !token.is_empty() => {
                let mut value: MetadataValue<Ascii> = value;
                value.set_sensitive(true);
                Ok(Some(value))
            }
            // Never with what is in it.
            _ => bail!("{} holds no token", file.display()),
        }
    }
}

fn read(file: &PathBuf) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Sends the token with every request.
#[derive(Clone, Debug)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}
