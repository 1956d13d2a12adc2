//! A cluster that speaks TLS alone, and a user of it with just enough rights.

use crinkle::l2::L2ErrorKind;
use crinkle::redis::{RedisBackplane, RedisClient, RedisClientBuilder, RedisL2, acl_rule};
use crinkle_testkit::ability::Ability;
use crinkle_testkit::cluster::{ClusterServers, SERVERS};
use crinkle_testkit::contract;
use crinkle_testkit::redis::free_port;
use crinkle_tests::redis::node_over;
use tempfile::TempDir;

use super::authority::{Authority, arguments};
use super::{keeps_in_step, rule_without};

struct TlsCluster {
    servers: ClusterServers,
    ports: Vec<u16>,
    authority: Authority,
    _files: TempDir,
}

impl TlsCluster {
    /// Clients and servers have to show certificates, the servers to each other as well.
    fn start() -> Self {
        let authority = Authority::new();
        let (files, certificates) = arguments(&authority, &authority.good());
        let ports: Vec<_> = (0..SERVERS).map(|_| free_port()).collect();
        let servers = ClusterServers::start_each(|at| {
            let port = ports[at].to_string();
            let own = ["--tls-port", &port, "--tls-cluster", "yes", "--tls-replication", "yes"];
            own.into_iter().map(ToOwned::to_owned).chain(certificates.clone()).collect()
        });
        Self { servers, ports, authority, _files: files }
    }

    /// As the user with the least rights, who trusts this authority.
    fn client(&self, authority: &Authority) -> RedisClientBuilder {
        let urls = self.ports.iter().map(|port| format!("rediss://app:any@127.0.0.1:{port}"));
        let identity = self.authority.good();
        RedisClient::cluster_builder(urls)
            .ca_certificates(authority.pem.as_str())
            .client_certificate(identity.certificate, identity.key)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_over_tls_keeps_the_contract_for_the_user_with_the_least_rights() {
    if !Ability::Tls.or_not_run() {
        return;
    }
    let cluster = TlsCluster::start();
    let client = async || cluster.client(&cluster.authority).connect().await.unwrap();
    let (one, two) = (client().await, client().await);
    let (store, bus) = (RedisL2::new(one.clone()), RedisBackplane::new(one.clone()));
    contract::l2(&store).await;
    contract::backplane(&bus).await;
    contract::announcing(&store, &bus).await;
    contract::l2(&store.locking_by_script()).await;
    keeps_in_step(&node_over(&one).await, &node_over(&two).await).await;
    for at in 0..SERVERS {
        let refused: Vec<redis::Value> = cluster.servers.ask(at, &["ACL", "LOG"]).unwrap();
        assert!(refused.is_empty(), "{refused:?}");
    }
    // Nobody has gone by the other port: `app` is on none of the plain connections.
    let others = Authority::new();
    let error = cluster.client(&others).connect().await.unwrap();
    let error = RedisL2::new(error).check_rights("shop:").await.unwrap_err();
    let said = error.to_string();
    assert!(error.is_outage() && said.contains("no TLS connection to 127.0.0.1:"), "{said}");
    assert!(said.contains("give the certificate of its authority to `ca_certificates`"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_on_one_server_of_a_cluster_is_named() {
    let servers = ClusterServers::start();
    let store = RedisL2::cluster(servers.app_urls()).await.unwrap();
    let rule = acl_rule("shop:");
    let commands = rule.split_whitespace().filter_map(|word| word.strip_prefix('+'));
    let elsewhere = ["role", "publish", "subscribe"];
    let optional = ["info", "client|setname", "readonly"];
    let needed = |command: &&str| !elsewhere.contains(command) && !optional.contains(command);
    for (at, command) in commands.filter(needed).enumerate() {
        let set = |rule: &str| {
            let words = ["ACL", "SETUSER", "app"].into_iter().chain(rule.split_whitespace());
            let () = servers.ask(at % 3, &words.collect::<Vec<_>>()).unwrap();
        };
        set(&rule_without("", command));
        let error = store.check_rights("shop:").await.unwrap_err();
        assert_eq!(error.kind(), L2ErrorKind::Denied, "{command}: {error}");
        let wanted = format!("may not run `{command}`: `ACL SETUSER app +{command}`");
        assert!(error.to_string().contains(&wanted), "{command}: {error}");
        set(&acl_rule(""));
    }
    store.check_rights("shop:").await.unwrap();
    let without = rule_without("", "cluster|slots");
    let words = ["ACL", "SETUSER", "app"].into_iter().chain(without.split_whitespace());
    let words: Vec<_> = words.collect();
    for at in 0..SERVERS {
        let () = servers.ask(at, &words).unwrap();
    }
    let stranger = RedisL2::cluster(servers.app_urls()).await.unwrap();
    let said = stranger.check_rights("shop:").await.unwrap_err().to_string();
    assert!(said.contains("may not run `cluster|slots`"), "{said}");
}
