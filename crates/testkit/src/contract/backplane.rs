//! Checks delivery, order and separation of channels of a backplane.

use bytes::Bytes;
use crinkle_core::backplane::Backplane;

use super::{fresh, next};

pub(super) async fn check<B: Backplane + ?Sized>(bus: &B) {
    receives_itself(bus).await;
    keeps_bytes_and_order(bus).await;
    keeps_channels_apart(bus).await;
    tells_every_subscriber(bus).await;
    assert_eq!(bus.bus(), bus.bus(), "a bus has one name");
}

async fn receives_itself<B: Backplane + ?Sized>(bus: &B) {
    let channel = fresh("contract:", "self");
    bus.publish(&channel, Bytes::from_static(b"before"))
        .await
        .expect("publishing without a subscriber");
    let mut subscription =
        bus.subscribe(std::slice::from_ref(&channel)).await.expect("subscribing");
    bus.publish(&channel, Bytes::from_static(b"after")).await.expect("publishing");
    // In a cluster, a message between servers may take longer than subscribing.
    let mut first = next(&mut *subscription).await;
    if first == "before" {
        first = next(&mut *subscription).await;
    }
    assert_eq!(first, "after", "a subscriber receives messages published after it subscribed");
}

async fn keeps_bytes_and_order<B: Backplane + ?Sized>(bus: &B) {
    let channel = fresh("contract:", "bytes");
    let mut subscription =
        bus.subscribe(std::slice::from_ref(&channel)).await.expect("subscribing");
    let every_byte: Vec<u8> = (0..=255).collect();
    let messages = [every_byte, Vec::new(), b"\r\n\0".to_vec(), vec![7; 70_000]].map(Bytes::from);
    for message in &messages {
        bus.publish(&channel, message.clone()).await.expect("publishing");
    }
    for message in messages {
        assert!(
            next(&mut *subscription).await == message,
            "a subscriber receives messages whole and in order"
        );
    }
}

async fn keeps_channels_apart<B: Backplane + ?Sized>(bus: &B) {
    let [one, two, other] = ["one", "two", "other"].map(|name| fresh("contract:", name));
    let mut subscription = bus.subscribe(&[one.clone(), two.clone()]).await.expect("subscribing");
    bus.publish(&other, Bytes::from_static(b"not ours")).await.expect("publishing");
    bus.publish(&two, Bytes::from_static(b"second")).await.expect("publishing");
    bus.publish(&one, Bytes::from_static(b"first")).await.expect("publishing");
    let got = [next(&mut *subscription).await, next(&mut *subscription).await];
    assert_eq!(got, ["second", "first"], "a subscription receives only its own channels");
}

async fn tells_every_subscriber<B: Backplane + ?Sized>(bus: &B) {
    let channels = [fresh("contract:", "many")];
    let mut first = bus.subscribe(&channels).await.expect("subscribing");
    let mut second = bus.subscribe(&channels).await.expect("subscribing again");
    let third = bus.subscribe(&channels).await.expect("subscribing a third time");
    drop(third);
    bus.publish(&channels[0], Bytes::from_static(b"all")).await.expect("publishing");
    for subscription in [&mut first, &mut second] {
        assert_eq!(next(&mut **subscription).await, "all", "every subscriber receives a message");
    }
}
