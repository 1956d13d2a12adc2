//! Servers that are reached over TLS.

use std::fs;

use crinkle_testkit::ability::Ability;
use crinkle_testkit::redis::RedisServer;

use crate::authority::{Authority, Server};
use crate::crinkle;

#[test]
fn a_server_is_reached_with_the_certificates_of_the_command_line() {
    if !Ability::Tls.or_not_run() {
        return;
    }
    let authority = Authority::new();
    let server = Server::start(&authority, &authority.good(), "yes");
    let identity = authority.good();
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = files.path().join(name);
        fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let (cacert, cert) = (file("ca", &authority.pem), file("cert", &identity.certificate));
    let (key, url) = (file("key", &identity.key), server.url());
    let stats = ["stats", "--prefix", "shop:", "--timeout", "2", "--url", &url];

    let ran = crinkle(stats.into_iter().chain(["--cacert", &cacert, "--cert", &cert]));
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("--cert and --key-file need each other"), "{ran:?}");
    let trusting = stats.into_iter().chain(["--cacert", &cacert]);
    let ran = crinkle(trusting.clone().chain(["--cert", &cert, "--key-file", &key]));
    assert!(ran.code <= 1, "{ran:?}");
    let ran = crinkle(trusting);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains("wants a certificate of this client"), "{ran:?}");
    let plain = RedisServer::start();
    let ran = crinkle(["stats", "--prefix", "shop:", "--url", &plain.url()]);
    assert!(ran.code <= 1, "{ran:?}");
    let ran = crinkle(stats);
    assert!(ran.err.contains("no trusted authority has signed its certificate"), "{ran:?}");
}
