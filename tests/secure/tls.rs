//! TLS with an authority of one's own, and every way in which it fails.

use crinkle::redis::{Credentials, RedisClient, RedisClientBuilder, RedisL2};
use crinkle_testkit::ability::Ability;
use crinkle_testkit::redis::{RedisServer, free_port};
use crinkle_tests::redis::{comes_true, node_over};
use tokio::process::Command;

use super::authority::{Authority, Identity, Server, arguments};
use super::{cache_named, keeps_in_step};

/// Trusts the authority.
fn trusting(server: &Server, authority: &Authority) -> RedisClientBuilder {
    RedisClient::builder(server.url()).ca_certificates(authority.pem.as_str())
}

fn shows(builder: RedisClientBuilder, identity: &Identity) -> RedisClientBuilder {
    builder.client_certificate(identity.certificate.as_str(), identity.key.as_str())
}

/// What a client says that cannot connect.
async fn complaint(builder: RedisClientBuilder) -> String {
    let client = builder.connect().await.unwrap();
    let error = RedisL2::new(client).check_rights("shop:").await.unwrap_err();
    assert!(error.is_outage(), "{error}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_keep_in_step_over_tls_with_certificates_of_their_own() {
    if !Ability::Tls.or_not_run() {
        return;
    }
    let authority = Authority::new();
    let server = Server::start(&authority, &authority.good(), "yes");
    let one = shows(trusting(&server, &authority), &authority.vouch("one", 4000));
    let two = shows(trusting(&server, &authority), &authority.vouch("two", 4000));
    let (one, two) = (one.connect().await.unwrap(), two.connect().await.unwrap());
    keeps_in_step(&node_over(&one).await, &node_over(&two).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_authority_is_told_with_what_to_do() {
    if !Ability::Tls.or_not_run() {
        return;
    }
    let authority = Authority::new();
    let server = Server::start(&authority, &authority.good(), "no");
    let other = Authority::new();
    // Another authority of the same name, and those of the operating system.
    for builder in [trusting(&server, &other), RedisClient::builder(server.url())] {
        let said = complaint(builder).await;
        assert!(
            said.contains(&format!("no TLS connection to 127.0.0.1:{}", server.port)),
            "{said}"
        );
        assert!(
            said.contains("give the certificate of its authority to `ca_certificates`"),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_told_with_what_to_do() {
    if !Ability::Tls.or_not_run() {
        return;
    }
    let authority = Authority::new();
    let server = Server::start(&authority, &authority.vouch("127.0.0.1", 2020), "no");
    let said = complaint(trusting(&server, &authority)).await;
    assert!(said.contains("its certificate has expired: renew it on the server"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_host_is_told_with_what_to_do() {
    if !Ability::Tls.or_not_run() {
        return;
    }
    let authority = Authority::new();
    let server = Server::start(&authority, &authority.vouch("redis.example", 4000), "no");
    let said = complaint(trusting(&server, &authority)).await;
    let wanted = "its certificate is for another host: connect to a name that the certificate has";
    assert!(said.contains(wanted) && said.contains("redis.example"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_a_certificate_and_gets_none_or_a_bad_one_is_told() {
    if !Ability::Tls.or_not_run() {
        return;
    }
    let authority = Authority::new();
    let server = Server::start(&authority, &authority.good(), "yes");
    let said = complaint(trusting(&server, &authority)).await;
    assert!(said.contains("give one to `client_certificate`"), "{said}");
    let stranger = Authority::new().vouch("stranger", 4000);
    let said = complaint(shows(trusting(&server, &authority), &stranger)).await;
    assert!(said.contains("does not accept the certificate of this client"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_tls_is_told_with_what_to_do() {
    let authority = Authority::new();
    let server = RedisServer::start();
    let url = format!("rediss://127.0.0.1:{}", server.port());
    let builder = RedisClient::builder(url).ca_certificates(authority.pem.as_str());
    let said = complaint(builder).await;
    let wanted = "if it does not speak TLS there: use the server's `tls-port`";
    assert!(said.contains(wanted), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_of_a_cache_tells_what_is_wrong_with_the_certificate() {
    if !Ability::Tls.or_not_run() {
        return;
    }
    let authority = Authority::new();
    let server = Server::start(&authority, &authority.vouch("127.0.0.1", 2020), "no");
    let client = trusting(&server, &authority).connect().await.unwrap();
    let cache = cache_named("shop", &client);
    let told = |error: Option<crinkle::LastError>| {
        error.is_some_and(|error| error.what.contains("its certificate has expired"))
    };
    comes_true("L2 tells", async || told(cache.health().last_l2_error)).await;
    comes_true("the backplane tells", async || told(cache.health().last_backplane_error)).await;
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_at_once() {
    let authority = Authority::new();
    let identity = authority.good();
    let secure = || RedisClient::builder("rediss://127.0.0.1:1");
    let refusals = [
        (secure().ca_certificates("no PEM"), "`ca_certificates` holds no certificate"),
        (secure().client_certificate(identity.certificate.as_str(), "no PEM"), "private key"),
        (RedisClient::builder("redis://127.0.0.1:1").ca_certificates(authority.pem), "rediss://"),
    ];
    for (builder, wanted) in refusals {
        let said = builder.connect().await.unwrap_err().to_string();
        assert!(said.contains(wanted), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_and_the_servers_that_they_name_are_spoken_to_over_tls() {
    if !Ability::Tls.or_not_run() {
        return;
    }
    let authority = Authority::new();
    let server = Server::start(&authority, &authority.good(), "yes");
    let (files, args) = arguments(&authority, &authority.good());
    let (port, config) = (free_port(), files.path().join("sentinel.conf"));
    let lines = args.chunks(2).map(|pair| format!("{} {}\n", &pair[0][2..], pair[1]));
    let lines = lines.collect::<String>()
        + &format!(
            "bind 127.0.0.1\nport 0\ntls-port {port}\ntls-replication yes\ntls-auth-clients yes\n\
             sentinel monitor shopdb 127.0.0.1 {} 1\n",
            server.port
        );
    std::fs::write(&config, lines).unwrap();
    let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
    let mut sentinel = Command::new(program);
    sentinel.arg(&config).arg("--sentinel").stdout(std::process::Stdio::null());
    let _running = sentinel.kill_on_drop(true).spawn().unwrap();

    let identity = authority.good();
    let client = async || {
        let urls = [format!("rediss://127.0.0.1:{port}")];
        let builder = RedisClient::sentinel_builder(urls, "shopdb")
            .user(Credentials::new("default", "any"))
            .ca_certificates(authority.pem.as_str());
        shows(builder, &identity).connect().await.unwrap()
    };
    let (one, two) = (client().await, client().await);
    keeps_in_step(&node_over(&one).await, &node_over(&two).await).await;
}
