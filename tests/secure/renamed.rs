//! Servers and proxies that do not have what a cache needs: said at once, with what to do.

use crinkle::ErrorKind;
use crinkle::l2::L2ErrorKind;
use crinkle::redis::{RedisBackplane, RedisClient, RedisL2};
use crinkle_testkit::redis::RedisServer;
use crinkle_tests::redis::node_over;
use tokio::time::timeout;

use super::{DEADLINE, cache_named, keeps_in_step};

/// What both checks, and `ready`, say of such a server.
async fn told(server: &RedisServer) -> [Result<(), String>; 3] {
    let client = RedisClient::connect(&server.url()).await.unwrap();
    let store = RedisL2::new(client.clone()).check_rights("shop:").await.map_err(|error| {
        assert_eq!(error.kind(), L2ErrorKind::Denied, "{error}");
        error.to_string()
    });
    let bus = RedisBackplane::new(client.clone()).check_rights("shop:").await.map_err(|error| {
        assert!(error.is_refused(), "{error}");
        error.to_string()
    });
    let cache = cache_named("shop", &client);
    let ready = timeout(DEADLINE, cache.ready()).await;
    let ready = ready.unwrap_or_else(|_| panic!("no answer in time: {:?}", cache.health()));
    [store, bus, ready.map_err(|error| error.to_string())]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_scripts_is_no_store() {
    for (missing, named) in
        [("EVALSHA", "`EVALSHA`"), ("SCRIPT", "`SCRIPT LOAD`"), ("ZMSCORE", "`ZMSCORE`")]
    {
        let server = RedisServer::start_without(&[missing]);
        let [store, bus, ready] = told(&server).await;
        for said in [store, ready] {
            let said = said.expect_err(missing);
            assert!(said.contains(&format!("the server has no {named}")), "{said}");
            assert!(said.contains("rename-command") && said.contains("proxy"), "{said}");
            assert_eq!(said.contains("Lua"), missing != "ZMSCORE", "{said}");
        }
        assert_eq!(bus, Ok(()), "{missing}");
    }
}

/// A write that such a server gets none of says what it lacks, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_says_what_the_server_does_not_have() {
    for (missing, named) in [("EVALSHA", "`EVALSHA`"), ("SCRIPT", "`SCRIPT LOAD`")] {
        let server = RedisServer::start_without(&[missing]);
        let cache = cache_named("shop", &RedisClient::connect(&server.url()).await.unwrap());
        let set = cache.set("key", 1_u64).require_propagation();
        let error = timeout(DEADLINE, set).await.expect("in time").expect_err(missing);
        assert_eq!(error.kind(), ErrorKind::NotPropagated);
        let said = error.to_string();
        assert!(said.contains("nothing was sent"), "{said}");
        assert!(said.contains(&format!("the server has no {named}")), "{said}");
        assert!(said.contains("rename-command"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_pub_sub_is_no_backplane() {
    for missing in ["PUBLISH", "SUBSCRIBE"] {
        let server = RedisServer::start_without(&[missing]);
        let [_, bus, ready] = told(&server).await;
        for said in [bus, ready] {
            let said = said.expect_err(missing);
            assert!(said.contains(&format!("the server has no `{missing}`")), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_hello_is_told_with_the_protocol_that_it_knows() {
    let server = RedisServer::start_without(&["HELLO"]);
    for said in told(&server).await {
        let said = said.expect_err("no HELLO");
        assert!(said.contains("add `?protocol=resp2` to the URL"), "{said}");
    }
    let url = format!("{}/?protocol=resp2", server.url());
    let (one, two) =
        (RedisClient::connect(&url).await.unwrap(), RedisClient::connect(&url).await.unwrap());
    RedisL2::new(one.clone()).check_rights("shop:").await.unwrap();
    RedisBackplane::new(one.clone()).check_rights("shop:").await.unwrap();
    keeps_in_step(&node_over(&one).await, &node_over(&two).await).await;
}

/// On servers of their own, too: the login of the backplane is not that of the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_of_a_backplane_of_its_own_is_an_error_of_ready_at_once() {
    let store = RedisServer::start();
    let bus = RedisServer::start_with_users(&[super::ADMIN, "user app on >secret ~* &* +@all"]);
    let l2 = RedisL2::new(RedisClient::connect(&store.app_url()).await.unwrap());
    let backplane = RedisBackplane::connect(&bus.url_for("app", "mistaken")).await.unwrap();
    let cache = crinkle::Cache::builder("shop").l2(l2).backplane(backplane).build().unwrap();
    let error = timeout(DEADLINE, cache.ready()).await.expect("at once").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backplane);
    assert!(error.to_string().contains("Check the user and password"), "{error}");
    assert!(!error.to_string().contains("mistaken"));
}

#[tokio::test]
async fn a_url_that_makes_no_sense_says_what_to_write() {
    for (url, said) in [
        ("localhost:6379", "write `redis://localhost:6379`"),
        ("localhost", "write `redis://localhost`"),
        ("app:s3cret@host:6379/1", "write `redis://user:password@host:6379/1`"),
        ("http://localhost", "its scheme is `http://`; write `redis://`"),
    ] {
        let errors = [
            RedisClient::connect(url).await.unwrap_err(),
            RedisClient::cluster([url]).await.unwrap_err(),
            RedisClient::sentinel([url], "mymaster").await.unwrap_err(),
        ];
        for error in errors.map(|error| error.to_string()) {
            assert!(error.contains(said), "{url}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
