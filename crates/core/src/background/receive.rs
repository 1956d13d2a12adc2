//! Receives messages, and keeps this node subscribed.
//!
//! One task subscribes and applies every message in order. When the subscription ends, it starts
//! over with back-off and full jitter. The back-off resets only after a subscription has lasted for
//! a while. A new subscription is a resync (earlier messages are unknown), not a flush.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, timeout};

use crate::backplane::message::{self, Body, KeyOp, Message};
use crate::backplane::publish::Bus;
use crate::backplane::{Incoming, Subscription};
use crate::clock::Moment;
use crate::error::BackplaneError;
use crate::events::Event;
use crate::node::Node;
use crate::protocol::resync::ResyncReason;
use crate::protocol::{KeyHash, Version};
use crate::telemetry::{Fault, spans};

/// How long a gap in a publisher's sequence may take to fill before it is a loss.
const GRACE: Duration = Duration::from_secs(1);

/// How long an announced write may take to be confirmed before it causes a resync. It is two polls
/// at most: its publisher may be gone, and other nodes must see what it wrote within three.
const CONFIRMATION: Duration = Duration::from_secs(3);

/// The longest pause between two attempts to subscribe.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a subscription must have lasted for the next attempt to come at once. One that is
/// accepted and then killed (an output buffer limit, an ACL, a proxy) is retried as seldom as one
/// that is refused.
const STEADY: Duration = LONGEST_PAUSE;

/// Receives messages until the cache closes.
pub(crate) async fn run(node: Arc<Node>) {
    let Some(bus) = &node.bus else { return };
    let mut failures = 0_u32;
    loop {
        let channels = bus.channels();
        let attempt = bus.backplane().subscribe(&channels);
        let subscribed = tokio::select! {
            biased;
            () = node.closing.cancelled() => return,
            result = timeout(node.l2_limit().saturating_mul(5), attempt) => result,
        };
        match subscribed {
            Ok(Ok(mut subscription)) => {
                let since = Instant::now();
                // Drops an old request to resubscribe: it concerns the subscription before.
                let _ = node.notices.resubscribe.notified().now_or_never();
                connected(&node);
                listen(&node, bus, &mut *subscription).await;
                disconnected(&node);
                if since.elapsed() >= STEADY {
                    failures = 0;
                }
            }
            Ok(Err(error)) => {
                // Record the reason first: callers that wait for the link report it.
                cannot_subscribe(&node, &error);
                node.link.modify(|link| link.subscribe_refused = error.is_refused());
            }
            Err(_) => {
                cannot_subscribe(&node, &BackplaneError::new("subscribing takes too long"));
            }
        }
        if node.closing.is_cancelled() {
            return;
        }
        let pause = back_off(&node, failures);
        failures = failures.saturating_add(1);
        tokio::select! {
            biased;
            () = node.closing.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

fn cannot_subscribe(node: &Node, error: &BackplaneError) {
    node.telemetry.backplane_failed(error);
    node.telemetry.fault(Fault::Unsubscribed, &error.to_string());
    tracing::debug!(cache = &*node.name, %error, "cannot subscribe; trying again");
}

/// Full jitter: uniform below a bound that doubles from 50 ms to 5 s.
fn back_off(node: &Node, failures: u32) -> Duration {
    let bound = Duration::from_millis(50) * 2_u32.saturating_pow(failures.min(7));
    let bound = crate::clock::nanos(bound.min(LONGEST_PAUSE));
    Duration::from_nanos(node.entropy.below(bound))
}

fn connected(node: &Node) {
    node.coherence.ttl.listen(node.now());
    if !sabotaged!(ReconnectKeepsSession) {
        node.resync(ResyncReason::Connected);
    }
    node.link.modify(|link| (link.subscribed, link.subscribe_refused) = (true, false));
    node.telemetry.fault_over(Fault::Unsubscribed);
    node.telemetry.emit(|| Event::Subscription { up: true });
    node.coherence.sync_wanted.notify_one();
    tracing::debug!(cache = &*node.name, "subscribed to the backplane");
}

/// Starts no new session yet. What was proven before holds until its coherence TTL ends, or until
/// an answered poll shows that only this node's heartbeats are lost. An outage does not switch L1
/// off.
fn disconnected(node: &Node) {
    node.coherence.ttl.subscription_lost();
    node.link.modify(|link| link.subscribed = false);
    node.telemetry.emit(|| Event::Subscription { up: false });
    if !node.closing.is_cancelled() {
        node.telemetry.fault(Fault::Unsubscribed, "the subscription ended");
    }
}

/// Notes that the subscription ended with the runtime of its task.
pub(crate) fn left(node: &Node) {
    if node.link.read().subscribed {
        disconnected(node);
    }
}

async fn listen(node: &Node, bus: &Bus, subscription: &mut dyn Subscription) {
    let mut closing = pin!(node.closing.cancelled());
    let mut resubscribe = pin!(node.notices.resubscribe.notified());
    loop {
        let incoming = tokio::select! {
            biased;
            () = &mut closing => return,
            () = &mut resubscribe => return,
            incoming = subscription.next() => incoming,
        };
        match incoming {
            Some(Incoming::Message(bytes)) => {
                node.counters.messages.add();
                match message::decode(&bytes) {
                    Some(message) => apply(node, bus, message),
                    None => {
                        node.counters.messages_undecodable.add();
                        node.telemetry.emit(|| Event::Undecodable { key: None });
                        // Resync at the next poll only: invalid messages must not keep every node
                        // verifying.
                        node.notices.message_lost();
                    }
                }
            }
            Some(Incoming::Lagged) => node.resync(ResyncReason::MessageLost),
            None => return,
        }
    }
}

/// Applies a message. No message is dropped because of its sequence number.
fn apply(node: &Node, bus: &Bus, message: Message) {
    let now = node.now();
    let own = message.publisher == bus.me();
    if node.settings.ignore_incoming && !own {
        return;
    }
    let notice = message.body.notice();
    let _span = spans::receive(&node.name, notice, own).entered();
    let grace = now + GRACE.min(node.settings.poll);
    if !own && message.seq != 0 {
        node.notices.received(message.publisher, message.seq, grace);
    }
    if let Some(notice) = notice {
        node.telemetry.emit(|| Event::Received { notice, own });
    }
    match message.body {
        Body::Removal { epoch, item } => {
            node.check_number(node.coherence.received(epoch, item));
        }
        Body::Key { op, version, key } => {
            // An own write fences when it begins and when it ends. Its echo must not fence what
            // began later, unless the write itself may have run after its call had ended.
            if own && !node.notices.is_late_window_open(now) {
                return;
            }
            apply_key(node, op, version, key);
            if own {
                return;
            }
            if op == KeyOp::Before {
                let due = now + CONFIRMATION.min(node.settings.poll * 2);
                if node.notices.expect(message.publisher, key, version, due) {
                    node.resync(ResyncReason::Unconfirmed);
                }
            } else {
                node.notices.confirm(message.publisher, key, version);
            }
        }
        Body::Heartbeat { beat, .. } if own => {
            let sent = Moment::from_nanos(beat);
            if beat != 0 && sent <= now {
                node.coherence.ttl.heartbeat(sent);
            }
        }
        Body::Heartbeat { next, .. } => {
            node.notices.sent(message.publisher, next, grace);
        }
    }
}

/// Compares for equality only: a copy of exactly this version stays, any other is dropped. Running
/// loads are fenced.
fn apply_key(node: &Node, op: KeyOp, version: Version, key: KeyHash) {
    if let Some(l2) = &node.l2 {
        l2.news(|| [key]);
    }
    node.flights.receive(key, version, || match op {
        _ if sabotaged!(NotificationIgnored) => {}
        KeyOp::Expired => node.l1.expire_other(key, version),
        KeyOp::Before | KeyOp::Written | KeyOp::Removed => node.l1.keep_only(key, version),
    });
    if op == KeyOp::Removed {
        node.flights.removed(key);
    }
}
