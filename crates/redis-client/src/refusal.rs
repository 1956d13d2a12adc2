//! Turns a failed connection attempt into an error that says what to do.

use std::io;

use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, RedisError};

use crate::error::is_unknown_command;

/// Explains a failed attempt to connect, for the operator.
pub(crate) fn explained(error: RedisError, target: &ConnectionInfo) -> RedisError {
    if error.is_timeout() && matches!(target.addr(), ConnectionAddr::TcpTls { .. }) {
        // A server without TLS takes the handshake for an unfinished command and waits.
        let said = format!(
            "no TLS connection to {} in time; if it does not speak TLS there: use the server's \
             `tls-port`, or `redis://`",
            target.addr()
        );
        return io::Error::new(io::ErrorKind::TimedOut, said).into();
    }
    let user = target.redis_settings().username().unwrap_or("default");
    explained_at(error, &target.addr().to_string(), user)
}

/// The same where the error does not say which sentinel or server failed.
pub(crate) fn explained_behind_sentinels(error: RedisError) -> RedisError {
    explained_at(error, "a sentinel, or the primary that it names", "?")
}

fn explained_at(error: RedisError, at: &str, user: &str) -> RedisError {
    let code = error.code().unwrap_or_default();
    let refused = ["WRONGPASS", "NOAUTH"].contains(&code);
    if refused || error.kind() == ErrorKind::AuthenticationFailed {
        return refused_login(&error, at, user);
    }
    let said = error.detail().unwrap_or_default();
    let has_no_hello = is_unknown_command(&error) && said.to_ascii_uppercase().contains("HELLO");
    if error.kind() == ErrorKind::RESP3NotSupported || has_no_hello {
        let advice = "add `?protocol=resp2` to the URL".to_owned();
        let what = "the server does not know RESP3 (no command `HELLO`)";
        return (ErrorKind::RESP3NotSupported, what, advice).into();
    }
    #[cfg(feature = "tls")]
    if let Some(found) = tls::error_in(&error) {
        let advice = tls::advice(found);
        return io::Error::other(format!("no TLS connection to {at}: {advice} ({found})")).into();
    }
    error
}

fn refused_login(error: &RedisError, at: &str, user: &str) -> RedisError {
    let said = error.detail().unwrap_or_default();
    let detail = format!(
        "user `{user}` at {at}: {}. Check the user and password in the URL, or what `credentials` \
         answers, and on the server `ACL GETUSER {user}`",
        said.trim_end_matches('.')
    );
    (ErrorKind::AuthenticationFailed, "the server refused the login", detail).into()
}

/// The application gave no credentials: the cache treats this as an outage.
pub(crate) fn no_credentials(why: &str) -> RedisError {
    io::Error::other(format!("no connection: the `credentials` callback failed: {why}")).into()
}

/// Explains a URL that cannot be parsed. The message never contains the password.
pub(crate) fn of_url(error: RedisError, url: &str) -> RedisError {
    let (kind, what) = (ErrorKind::InvalidClientConfig, "the URL of the server is invalid");
    let at = url.rsplit('@').next().unwrap_or_default();
    let login = if at.len() < url.len() { "user:password@" } else { "" };
    match url.split_once("://") {
        _ if url.starts_with("unix:") || url.starts_with("redis+unix:") => error,
        None => (kind, what, format!("it has no scheme; write `redis://{login}{at}`")).into(),
        Some((scheme, _)) if !["redis", "rediss", "valkey", "valkeys"].contains(&scheme) => {
            let advice = "write `redis://`, `rediss://` for TLS, or `redis+unix://`";
            (kind, what, format!("its scheme is `{scheme}://`; {advice}")).into()
        }
        _ => error,
    }
}

/// Explains an error in a URL or in certificates.
pub(crate) fn of_settings(error: RedisError) -> RedisError {
    if cfg!(not(feature = "tls")) && error.to_string().contains("TLS, the feature is not enabled") {
        let advice =
            "enable the feature `tls` of the crate `crinkle` (or `crinkle-l2-redis`), or write \
                      `redis://` for a connection without TLS"
                .to_owned();
        return (ErrorKind::InvalidClientConfig, "`rediss://` needs TLS", advice).into();
    }
    error
}

#[cfg(not(feature = "tls"))]
pub(crate) fn choose_cryptography() {}

#[cfg(feature = "tls")]
pub(crate) use tls::{check_authorities, choose_cryptography};

#[cfg(feature = "tls")]
mod tls {
    use std::error::Error as _;
    use std::io;
    use std::sync::Arc;

    use redis::{ErrorKind, RedisError, RedisResult, TlsCertificates};
    use rustls::crypto::{CryptoProvider, ring};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error, RootCertStore};

    /// Installs a crypto provider if the process has none. Without one, or with several linked,
    /// rustls panics.
    pub(crate) fn choose_cryptography() {
        if CryptoProvider::get_default().is_none() {
            // Fails if another thread has just installed one.
            drop(ring::default_provider().install_default());
        }
    }

    /// Rejects a PEM without certificates. The redis crate would accept it and then trust no
    /// server.
    pub(crate) fn check_authorities(certificates: &TlsCertificates) -> RedisResult<()> {
        let Some(pem) = &certificates.root_cert else { return Ok(()) };
        let mut trusted = RootCertStore::empty();
        trusted.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).flatten());
        if trusted.is_empty() {
            let what = "`ca_certificates` holds no certificate in PEM";
            return Err((ErrorKind::InvalidClientConfig, what).into());
        }
        Ok(())
    }

    pub(super) fn error_in(error: &RedisError) -> Option<&Error> {
        let found = error.source()?.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>()?;
        match found.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref()?.downcast_ref(),
            None => found.downcast_ref(),
        }
    }

    pub(super) fn advice(error: &Error) -> &'static str {
        match error {
            Error::InvalidCertificate(bad) => bad_certificate(bad),
            Error::AlertReceived(Alert::CertificateRequired | Alert::HandshakeFailure) => {
                "the server wants a certificate of this client: give one to `client_certificate`"
            }
            Error::AlertReceived(
                Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnsupportedCertificate
                | Alert::DecryptError,
            ) => {
                "the server does not accept the certificate of this client: it must not have expired, and \
                 its authority must be in the server's `tls-ca-cert-file`"
            }
            Error::InvalidMessage(_) => {
                "what answers there does not speak TLS: use the server's `tls-port`, or `redis://`"
            }
            _ => "the handshake failed",
        }
    }

    fn bad_certificate(bad: &Bad) -> &'static str {
        match bad {
            Bad::UnknownIssuer | Bad::BadSignature => {
                "no trusted authority has signed its certificate: give the certificate of its authority to \
                 `ca_certificates`, or add it to those that the operating system trusts"
            }
            Bad::Expired | Bad::ExpiredContext { .. } => {
                "its certificate has expired: renew it on the server, or set the clock of this machine"
            }
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                "its certificate is not valid yet: set the clock of this machine"
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                "its certificate is for another host: connect to a name that the certificate has, or have \
                 it issued for this one (subjectAltName)"
            }
            _ => "its certificate is invalid: have another one issued",
        }
    }
}
