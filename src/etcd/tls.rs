//! TLS towards etcd: who may sign the members' certificates, and which one the client shows.
//!
//! Owns the settings, shared by all clones of a client, so that sessions are resumed across them. Reads
//! the files of `--cacert`, `--cert` and `--key` at the start, and again after a connection has failed for
//! a reason of TLS: certificates are renewed under a running daemon. Never in between: a disk that hangs
//! must not hold up a keepalive.

use super::access::{Access, AccessError, Identity};
use super::connect::{TcpConnector, TcpTransport};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection};
use rustls::{RootCertStore, StreamOwned};
use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

/// Where systems keep their authorities: Debian, Alpine and OpenWrt; Fedora; SUSE.
const SYSTEM: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// The settings of one cluster.
pub(super) struct Tls {
    cacert: Option<PathBuf>,
    identity: Option<Identity>,
    config: RwLock<Arc<ClientConfig>>,
}

impl Tls {
    /// Reads the files that `access` names; `None` if none of it is about TLS.
    pub(super) fn open(access: &Access) -> Result<Option<Arc<Tls>>, AccessError> {
        if !access.wants_tls() {
            return Ok(None);
        }
        let (cacert, identity) = (access.cacert.clone(), access.identity.clone());
        let config = RwLock::new(read(cacert.as_deref(), identity.as_ref())?);
        Ok(Some(Arc::new(Tls {
            cacert,
            identity,
            config,
        })))
    }

    /// Reads the files again. While they cannot be used, what they held before goes on being used.
    pub(super) fn renew(&self) {
        if let Ok(config) = read(self.cacert.as_deref(), self.identity.as_ref()) {
            *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        }
    }

    fn config(&self) -> Arc<ClientConfig> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&config)
    }
}

fn read(
    cacert: Option<&Path>,
    identity: Option<&Identity>,
) -> Result<Arc<ClientConfig>, AccessError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for both versions")
        .with_root_certificates(authorities(cacert)?);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates("--cert", &identity.cert)?;
            let key = PrivateKeyDer::from_pem_file(&identity.key).map_err(|error| {
                of_file(
                    "--key",
                    &identity.key,
                    error,
                    "it holds no private key in PEM",
                )
            })?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|source| AccessError::Identity {
                    identity: identity.clone(),
                    source,
                })?
        }
    };
    Ok(Arc::new(config))
}

fn authorities(cacert: Option<&Path>) -> Result<RootCertStore, AccessError> {
    let mut store = RootCertStore::empty();
    match cacert {
        Some(path) => {
            for certificate in certificates("--cacert", path)? {
                store.add(certificate).map_err(|_| AccessError::Content {
                    option: "--cacert",
                    path: path.to_owned(),
                    lacks: "it holds a certificate that cannot be read",
                })?;
            }
        }
        None => {
            let list = SYSTEM.iter().map(Path::new).find(|path| path.exists());
            let list = list.ok_or(AccessError::NoAuthorities)?;
            // Some of a system's hundred may be of a kind that is not known here.
            store.add_parsable_certificates(certificates("the system's list", list)?);
        }
    }
    Ok(store)
}

fn certificates(
    option: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    const NONE: &str = "it holds no certificate in PEM";
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> = read.map_err(|error| of_file(option, path, error, NONE))?;
    if found.is_empty() {
        return Err(of_file(option, path, pem::Error::NoItemsFound, NONE));
    }
    Ok(found)
}

fn of_file(
    option: &'static str,
    path: &Path,
    error: pem::Error,
    lacks: &'static str,
) -> AccessError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(source) => AccessError::Read {
            option,
            path,
            source,
        },
        _ => AccessError::Content {
            option,
            path,
            lacks,
        },
    }
}

/// TCP, and TLS over it where the endpoint is `https`.
pub(super) fn connector(tls: Option<Arc<Tls>>) -> TlsConnector {
    TlsConnector { tls }
}

/// Opens the connections of one client.
pub(super) struct TlsConnector {
    tls: Option<Arc<Tls>>,
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConnector")
    }
}

impl Connector for TlsConnector {
    type Out = Either<TcpTransport, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        let begun = Instant::now();
        let Some(transport) = TcpConnector.connect(details, chained)? else {
            return Ok(None);
        };
        let tls = match &self.tls {
            Some(tls) if details.needs_tls() => tls,
            _ => return Ok(Some(Either::A(transport))),
        };
        let host = details.uri.host().unwrap_or_default();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(tls.config(), name).map_err(io::Error::other)?;
        let mut stream = TransportAdapter::new(transport, details.current_time.clone());
        let mut timeout = details.timeout;
        if !timeout.after.is_not_happening() {
            timeout.after = timeout.after.saturating_sub(begun.elapsed()).into();
        }
        stream.set_timeout(timeout);
        connection.complete_io(&mut stream)?;
        let config = details.config;
        Ok(Some(Either::B(TlsTransport {
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            stream: StreamOwned::new(connection, stream),
        })))
    }
}

/// One connection, as ureq uses it.
pub(super) struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter<TcpTransport>>,
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// What the operator can do about a failure of TLS; `None` if it is none.
pub(super) fn advice(error: &Error) -> Option<&'static str> {
    let Error::Io(error) = error else { return None };
    let reason: &rustls::Error = error.get_ref()?.downcast_ref()?;
    Some(match reason {
        rustls::Error::InvalidCertificate(problem) => of_its_certificate(problem),
        rustls::Error::AlertReceived(alert) => of_an_alert(*alert),
        rustls::Error::InvalidMessage(_) => {
            "what answers there does not speak TLS: is it http:// instead of https://?"
        }
        rustls::Error::PeerIncompatible(_) => {
            "it has no version or cipher of TLS in common with wmgwd (TLS 1.2 and 1.3)"
        }
        _ => "TLS failed",
    })
}

fn of_its_certificate(problem: &CertificateError) -> &'static str {
    match problem {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not signed by an authority in --cacert"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired: renew it, or set the clock of this machine"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: set the clock of this machine"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for other names: use one of them in --etcd, or add this one to it"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not for servers (extended key usage serverAuth)"
        }
        _ => "its certificate cannot be used",
    }
}

fn of_an_alert(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "it wants a certificate of ours: give --cert and --key"
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => {
            "it does not take the certificate of --cert and --key, or wants one: \
             is that signed by its --trusted-ca-file, valid, and for clients (clientAuth)?"
        }
        AlertDescription::CertificateExpired | AlertDescription::CertificateRevoked => {
            "the certificate of --cert has expired or was revoked: renew it"
        }
        AlertDescription::ProtocolVersion => {
            "it has no version or cipher of TLS in common with wmgwd (TLS 1.2 and 1.3)"
        }
        // Go answers so where the client cannot check its certificate's kind of key.
        AlertDescription::HandshakeFailure => {
            "it has no cipher, or no certificate, that wmgwd can use (RSA, P-256, P-384, Ed25519): \
             --auto-tls makes one with P-521; give it another by --cert-file and --key-file"
        }
        _ => "it ended the TLS connection",
    }
}
