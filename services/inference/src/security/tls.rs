//! TLS, with certificates that may be replaced while the server runs.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use futures::{Stream, StreamExt as _};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::TcpIncoming;

use super::{SecurityConfig, SecurityError, files::Named};

/// Time for a handshake. Who connects and says nothing is not waited for longer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Handshakes that go on at the same time; further connections wait.
const HANDSHAKES: usize = 1_024;

/// The server's side of TLS.
pub(crate) struct Tls {
    cert: Named,
    key: Named,
    client_ca: Option<Named>,
    /// What new connections see.
    current: ArcSwap<ServerConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("cert", &self.cert.file)
            .finish_non_exhaustive()
    }
}

impl Tls {
    pub(super) fn open(config: &SecurityConfig) -> Result<Self, SecurityError> {
        let cert = Named::new("tls_cert", &config.tls_cert);
        let key = Named::new("tls_key", &config.tls_key);
        let client_ca = Some(&config.client_ca)
            .filter(|file| !file.is_empty())
            .map(|file| Named::new("client_ca", file));
        let files = [Some(&cert), Some(&key), client_ca.as_ref()];
        let contents = files.into_iter().flatten().map(Named::read);
        let contents = contents.collect::<Result<Vec<_>, _>>()?;
        let current = build(&cert, &key, client_ca.as_ref(), &contents)?;
        Ok(Self {
            cert,
            key,
            client_ca,
            current: ArcSwap::from_pointee(current),
        })
    }

    /// In the order in which [`Self::replace`] takes their contents.
    pub(super) fn files(&self) -> Vec<Named> {
        let mut files = vec![self.cert.clone(), self.key.clone()];
        files.extend(self.client_ca.clone());
        files
    }

    /// Shows these certificates from the next connection on.
    pub(super) fn replace(&self, contents: &[Vec<u8>]) -> Result<String, SecurityError> {
        let next = build(&self.cert, &self.key, self.client_ca.as_ref(), contents)?;
        self.current.store(Arc::new(next));
        Ok(self.cert.file.display().to_string())
    }
}

fn build(
    cert: &Named,
    key: &Named,
    client_ca: Option<&Named>,
    contents: &[Vec<u8>],
) -> Result<ServerConfig, SecurityError> {
    let part = |index: usize| contents.get(index).map_or(&[][..], Vec::as_slice);
    let chain = certificates(cert, part(0))?;
    // The parser's messages may quote what it read.
    let private = PrivateKeyDer::from_pem_slice(part(1))
        .map_err(|_| key.bad("holds no private key in PEM format"))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| cert.bad(error.to_string()))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(file, part(2))? {
                roots
                    .add(authority)
                    .map_err(|error| file.bad(error.to_string()))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder
                .with_client_cert_verifier(verifier.map_err(|error| file.bad(error.to_string()))?)
        }
    };
    let mut config = builder
        .with_single_cert(chain, private)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => key.bad(format!(
                "is not the key of the certificate in {}",
                cert.file.display()
            )),
            error => cert.bad(error.to_string()),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(file: &Named, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match parsed {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(file.bad("holds no certificate in PEM format")),
    }
}

/// Connections whose handshake is done. One that fails is no error of the server.
pub(crate) fn incoming(
    listener: TcpListener,
    tls: Arc<Tls>,
) -> impl Stream<Item = std::io::Result<TlsStream<TcpStream>>> {
    TcpIncoming::from(listener)
        .with_nodelay(Some(true))
        .map(move |connection| {
            let tls = Arc::clone(&tls);
            tokio::spawn(async move {
                let acceptor = TlsAcceptor::from(tls.current.load_full());
                let connection = connection?;
                let accepted = acceptor.accept(connection);
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, accepted).await {
                    Ok(Ok(stream)) => Ok(Some(stream)),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "a TLS handshake failed");
                        Ok(None)
                    }
                    Err(_) => {
                        tracing::debug!("a TLS handshake took too long");
                        Ok(None)
                    }
                }
            })
        })
        .buffer_unordered(HANDSHAKES)
        .filter_map(async |done| match done {
            Ok(Ok(stream)) => stream.map(Ok),
            Ok(Err(error)) => Some(Err(error)),
            Err(_) => None,
        })
}
