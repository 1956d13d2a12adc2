//! Contract suites over stores that offer less than an L2.

use std::sync::Arc;

use crinkle_core::l2::{Atomicity, L2};
use crinkle_l2_cas::{CasL2, PlainL2};
use crinkle_l2_disk::Disk;
use crinkle_l2_memcached::Memcached;
use crinkle_testkit::contract;
use crinkle_testkit::memcached::MemcachedServer;

use crate::shelf::{PlainShelf, Shelf};

async fn l2_in_every_guise(store: impl L2, atomicity: Atomicity) {
    contract::l2(&store).await;
    let shared: Arc<dyn L2> = Arc::new(store);
    contract::l2(&shared).await;
    assert_eq!((shared.atomicity(), shared.bus()), (atomicity, None));
}

#[tokio::test]
async fn an_l2_over_compare_and_swap_keeps_the_contract() {
    let shelf = Shelf::new();
    contract::cas_store(&shelf).await;
    l2_in_every_guise(CasL2::new(shelf), Atomicity::CompareAndSwap).await;
}

#[tokio::test]
async fn an_l2_over_a_plain_store_keeps_what_it_can_of_the_contract() {
    l2_in_every_guise(PlainL2::new(PlainShelf(Shelf::new())), Atomicity::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memcached_keeps_the_contract() {
    let server = MemcachedServer::start();
    contract::cas_store(&Memcached::connect(&server.url()).unwrap()).await;
    let store = CasL2::new(Memcached::connect(&server.url()).unwrap());
    l2_in_every_guise(store, Atomicity::CompareAndSwap).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path().join("cache")).unwrap();
    contract::cas_store(&disk).await;
    l2_in_every_guise(CasL2::new(disk), Atomicity::CompareAndSwap).await;
}
