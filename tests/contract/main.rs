//! Runs every store and every backplane against the one contract, plain and through pointers.

use std::sync::Arc;

use crinkle_backplane::RedisBackplane;
use crinkle_core::SystemClock;
use crinkle_core::backplane::{Backplane, MemoryBackplane};
use crinkle_core::l2::{L2, MemoryL2};
use crinkle_l2_redis::{RedisClient, RedisL2, acl_rule};
use crinkle_testkit::contract;
use crinkle_testkit::redis::RedisServer;

async fn l2_in_every_guise<S: L2 + Clone>(store: S) {
    contract::l2(&store).await;
    let shared: Arc<dyn L2> = Arc::new(store.clone());
    contract::l2(&shared).await;
    contract::l2(&*shared).await;
    let boxed: Box<dyn L2> = Box::new(store);
    contract::l2(&boxed).await;
}

async fn backplane_in_every_guise<B: Backplane + Clone>(bus: B) {
    contract::backplane(&bus).await;
    let shared: Arc<dyn Backplane> = Arc::new(bus.clone());
    contract::backplane(&shared).await;
    contract::backplane(&*shared).await;
    let boxed: Box<dyn Backplane> = Box::new(bus);
    contract::backplane(&boxed).await;
}

#[tokio::test]
async fn memory_l2_keeps_the_contract() {
    l2_in_every_guise(MemoryL2::new()).await;
}

#[tokio::test]
async fn memory_backplane_keeps_the_contract() {
    backplane_in_every_guise(MemoryBackplane::new()).await;
}

#[tokio::test]
async fn memory_l2_announces_as_it_writes() {
    let bus = MemoryBackplane::new();
    let store = MemoryL2::announcing(Arc::new(SystemClock), bus.clone());
    contract::l2(&store).await;
    contract::announcing(&store, &bus).await;
}

#[tokio::test]
async fn redis_l2_keeps_the_contract() {
    let server = RedisServer::start();
    l2_in_every_guise(RedisL2::connect(&server.url()).await.unwrap()).await;
}

#[tokio::test]
async fn redis_l2_keeps_the_contract_over_resp2_too() {
    let server = RedisServer::start();
    let url = format!("{}/?protocol=resp2", server.url());
    let client = RedisClient::connect(&url).await.unwrap();
    contract::l2(&RedisL2::new(client.clone())).await;
    contract::backplane(&RedisBackplane::new(client)).await;
}

#[tokio::test]
async fn redis_backplane_keeps_the_contract() {
    let server = RedisServer::start();
    backplane_in_every_guise(RedisBackplane::connect(&server.url()).await.unwrap()).await;
}

#[tokio::test]
async fn redis_announces_as_it_writes_even_on_two_connections() {
    let server = RedisServer::start();
    let client = RedisClient::connect(&server.url()).await.unwrap();
    let bus = RedisBackplane::new(client.clone());
    contract::announcing(&RedisL2::new(client), &bus).await;
    contract::announcing(&RedisL2::connect(&server.url()).await.unwrap(), &bus).await;
}

/// The permissions of `acl_rule` suffice for every call.
#[tokio::test]
async fn the_least_rights_suffice() {
    let user = format!("user crinkle on >secret {}", acl_rule("contract:"));
    let server = RedisServer::start_with_users(&["user default on nopass ~* &* +@all", &user]);
    let client = RedisClient::connect(&server.url_for("crinkle", "secret")).await.unwrap();
    let (store, bus) = (RedisL2::new(client.clone()), RedisBackplane::new(client.clone()));
    store.check_rights("contract:").await.unwrap();
    bus.check_rights("contract:").await.unwrap();
    contract::l2(&store).await;
    contract::l2(&store.locking_by_script()).await;
    contract::backplane(&bus).await;
    contract::announcing(&RedisL2::new(client), &bus).await;
    let mut admin = RedisClient::connect(&server.url()).await.unwrap();
    let log = redis::cmd("ACL").arg("LOG").query_async::<Vec<redis::Value>>(&mut admin).await;
    assert!(log.as_ref().unwrap().is_empty(), "what the server has refused: {log:?}");
}
