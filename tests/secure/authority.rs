//! Certificates made for one test, and servers that show them. Needs a redis-server built with TLS, which
//! Debian's is.

use std::fs;

use crinkle_testkit::redis::{RedisServer, free_port};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// One who vouches for others.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its private key, as PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// For one name, until a year.
    pub(crate) fn vouch(&self, name: &str, until: i32) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2015, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }

    /// A good certificate for the loopback.
    pub(crate) fn good(&self) -> Identity {
        self.vouch("127.0.0.1", 4000)
    }
}

/// A server with a second port for TLS.
pub(crate) struct Server {
    _plain: RedisServer,
    pub(crate) port: u16,
    _files: TempDir,
}

impl Server {
    /// It trusts the authority; `clients` is `yes` if they have to show a certificate, otherwise `no`.
    pub(crate) fn start(authority: &Authority, identity: &Identity, clients: &str) -> Self {
        let (files, arguments) = arguments(authority, identity);
        let port = free_port();
        let port_text = port.to_string();
        let mut args = vec!["--tls-port", &port_text, "--tls-auth-clients", clients];
        args.extend(arguments.iter().map(String::as_str));
        Self { _plain: RedisServer::start_with(&args), port, _files: files }
    }

    pub(crate) fn url(&self) -> String {
        format!("rediss://app:any@127.0.0.1:{}", self.port)
    }
}

/// The certificates as a server takes them, and where they lie.
pub(crate) fn arguments(authority: &Authority, identity: &Identity) -> (TempDir, Vec<String>) {
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = files.path().join(name);
        fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let args = [
        ("--tls-ca-cert-file", file("ca.pem", &authority.pem)),
        ("--tls-cert-file", file("cert.pem", &identity.certificate)),
        ("--tls-key-file", file("key.pem", &identity.key)),
    ];
    (files, args.into_iter().flat_map(|(name, path)| [name.to_owned(), path]).collect())
}
