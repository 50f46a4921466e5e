//! How a client proves who it is to a Kafka cluster, and the cluster to it.

use std::{fmt, fs, path::PathBuf};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::SourceError;

/// What goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// Everything in the open.
    Plaintext,
    /// TLS.
    Tls,
    /// SASL in the open: for a network that is safe by itself.
    SaslPlaintext,
    /// SASL over TLS.
    SaslTls,
}

impl Security {
    /// True when the connection is TLS.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::SaslTls)
    }

    /// True when the client says who it is by SASL.
    pub fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslTls)
    }
}

/// TLS: whom to trust, and the client's own certificate. All files are PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificates of the authorities that brokers' certificates are checked against;
    /// those of the system when it is not set.
    pub ca: Option<PathBuf>,
    /// The client's certificate and its chain, for brokers that ask for one (mTLS).
    pub certificate: Option<PathBuf>,
    /// The private key of the certificate.
    pub key: Option<PathBuf>,
    /// The password of the private key.
    #[serde(skip_serializing)]
    pub key_password: Option<Secret>,
    /// A file with the password of the private key.
    pub key_password_file: Option<PathBuf>,
    /// Accept a certificate that is valid but for another host name.
    pub any_host_name: bool,
}

/// SASL: as whom to log in, and by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaslConfig {
    /// How.
    pub mechanism: SaslMechanism,
    /// The user, for PLAIN and SCRAM.
    pub username: Option<String>,
    /// The password, for PLAIN and SCRAM.
    #[serde(skip_serializing)]
    pub password: Option<Secret>,
    /// A file with the password, for PLAIN and SCRAM.
    pub password_file: Option<PathBuf>,
    /// A file with a JSON Web Token, for OAUTHBEARER. It is read again before the token in
    /// it expires: whoever puts it there puts a new one in time.
    pub token_file: Option<PathBuf>,
}

/// How to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslMechanism {
    /// Name and password as they are.
    #[serde(rename = "PLAIN")]
    Plain,
    /// A proof of the password, with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// A proof of the password, with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// A token that somebody else has issued.
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer,
}

impl SaslMechanism {
    /// Its registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }
}

/// A text that is never shown: not by `Debug`, not in an error, not written anywhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// What is shown in place of a secret.
pub(crate) const HIDDEN: &str = "[hidden]";

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The first line of a file.
    pub(crate) fn read(key: &str, path: &PathBuf) -> Result<Self, SourceError> {
        let text = fs::read_to_string(path).map_err(|error| {
            SourceError::Config(format!("{key}: cannot read {}: {error}", path.display()))
        })?;
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() {
            let path = path.display();
            return Err(SourceError::Config(format!("{key}: {path} is empty")));
        }
        Ok(Self(line.to_owned()))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

/// The visitor that serde gives shows what it has found where it wants something else.
struct SecretVisitor;

impl SecretVisitor {
    fn refuse<E: de::Error>() -> E {
        E::custom(
            "a secret must be text; in the environment put one that looks like a number into double quotes",
        )
    }
}

impl de::Visitor<'_> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
        Err(Self::refuse())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
        Err(Self::refuse())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
        Err(Self::refuse())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
        Err(Self::refuse())
    }
}

/// What the sections say together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KafkaSecurity {
    /// What goes over the wire; from the other two sections when it is not set.
    pub security: Option<Security>,
    /// TLS.
    pub tls: Option<TlsConfig>,
    /// SASL.
    pub sasl: Option<SaslConfig>,
}

impl KafkaSecurity {
    /// What goes over the wire. `None` where nothing is said, so that the further
    /// properties may say it. SASL without a word on TLS is SASL over TLS.
    pub fn protocol(&self) -> Option<Security> {
        self.security.or(match (&self.tls, &self.sasl) {
            (_, Some(_)) => Some(Security::SaslTls),
            (Some(_), None) => Some(Security::Tls),
            (None, None) => None,
        })
    }

    /// Refuses what contradicts itself, naming the key.
    pub(crate) fn check(&self) -> Result<(), SourceError> {
        let refuse = |what: &str| Err(SourceError::Config(what.to_owned()));
        let protocol = self.protocol();
        if self.tls.is_some() && !protocol.is_some_and(Security::has_tls) {
            return refuse("tls is set, but security says that there is none");
        }
        if self.sasl.is_some() && !protocol.is_some_and(Security::has_sasl) {
            return refuse("sasl is set, but security says that there is none");
        }
        if self.sasl.is_none() && protocol.is_some_and(Security::has_sasl) {
            return refuse("security asks for SASL, but there is no sasl.mechanism");
        }
        if let Some(tls) = &self.tls {
            if tls.certificate.is_some() != tls.key.is_some() {
                return refuse("tls.certificate and tls.key go together");
            }
            if tls.key_password.is_some() && tls.key_password_file.is_some() {
                return refuse("tls.key_password and tls.key_password_file exclude each other");
            }
        }
        let Some(sasl) = &self.sasl else {
            return Ok(());
        };
        if sasl.mechanism == SaslMechanism::OAuthBearer {
            if sasl.token_file.is_none() {
                return refuse("sasl.mechanism OAUTHBEARER needs sasl.token_file");
            }
            return Ok(());
        }
        if sasl.username.as_deref().is_none_or(str::is_empty) {
            return refuse("sasl.username is not set");
        }
        if sasl.password.is_some() == sasl.password_file.is_some() {
            return refuse("one of sasl.password and sasl.password_file must be set");
        }
        Ok(())
    }

    /// The properties of librdkafka. Reads the files with secrets.
    pub(crate) fn properties(&self) -> Result<Vec<(&'static str, String)>, SourceError> {
        let Some(protocol) = self.protocol() else {
            return Ok(Vec::new());
        };
        let name = match protocol {
            Security::Plaintext => "plaintext",
            Security::Tls => "ssl",
            Security::SaslPlaintext => "sasl_plaintext",
            Security::SaslTls => "sasl_ssl",
        };
        let mut properties = vec![("security.protocol", name.to_owned())];
        let mut set = |name, value: Option<String>| {
            properties.extend(value.map(|value| (name, value)));
        };
        if protocol.has_tls() {
            let tls = self.tls.clone().unwrap_or_default();
            let path = |path: Option<PathBuf>| path.map(|path| path.display().to_string());
            // What is linked into the program knows no place of the system's certificates.
            let ca = path(tls.ca).unwrap_or_else(|| "probe".to_owned());
            set("ssl.ca.location", Some(ca));
            set("ssl.certificate.location", path(tls.certificate));
            set("ssl.key.location", path(tls.key));
            let password = given(
                "tls.key_password_file",
                tls.key_password,
                tls.key_password_file,
            )?;
            set("ssl.key.password", password);
            if tls.any_host_name {
                let none = "none".to_owned();
                set("ssl.endpoint.identification.algorithm", Some(none));
            }
        }
        if let Some(sasl) = self.sasl.clone() {
            set("sasl.mechanisms", Some(sasl.mechanism.as_str().to_owned()));
            if sasl.mechanism != SaslMechanism::OAuthBearer {
                set("sasl.username", sasl.username);
                let password = given("sasl.password_file", sasl.password, sasl.password_file)?;
                set("sasl.password", password);
            }
        }
        Ok(properties)
    }
}

fn given(
    key: &str,
    secret: Option<Secret>,
    file: Option<PathBuf>,
) -> Result<Option<String>, SourceError> {
    let read = file.map(|file| Secret::read(key, &file)).transpose()?;
    Ok(secret.or(read).map(|secret| secret.0))
}

/// True for a property of librdkafka whose value is nobody's business.
pub fn is_secret(property: &str) -> bool {
    [
        "password",
        "passphrase",
        "secret",
        "token",
        "oauthbearer.config",
        ".pem",
        "ssl_key",
        "jaas",
    ]
    .iter()
    .any(|part| property.contains(part))
}
