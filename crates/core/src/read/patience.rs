//! Limits how long the callers of a batch wait for L2.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::Call;
use super::probe::note_given_up;
use crate::flight::Flight;
use crate::node::Node;

/// A flight that this batch leads.
pub(super) type Led = (Arc<Flight>, Arc<Call>);

/// Ends a batch's shared requests as soon as one caller of one of its flights gives up on L2.
///
/// All its keys then continue without L2, because they wait for the same requests.
pub(super) struct Patience<'a> {
    node: &'a Node,
    led: &'a [Led],
    over: Arc<Notify>,
    noted: AtomicBool,
}

impl<'a> Patience<'a> {
    pub(super) fn of(node: &'a Node, led: &'a [Led]) -> Self {
        let over = Arc::default();
        led.iter().for_each(|(flight, _)| flight.led_by(&over));
        Self { node, led, over, noted: AtomicBool::new(false) }
    }

    /// Awaits a request to L2; `None` if a caller gives up on L2 first.
    pub(super) async fn lasts<R>(&self, asking: impl Future<Output = R> + Send) -> Option<R> {
        tokio::select! {
            biased;
            () = self.gives_up() => None,
            result = asking => Some(result),
        }
    }

    async fn gives_up(&self) {
        let given_up = || self.led.iter().find_map(|(flight, _)| flight.given_up());
        let limit = loop {
            if let Some(limit) = given_up() {
                break limit;
            }
            self.over.notified().await;
        };
        self.led.iter().for_each(|(flight, _)| flight.give_up_l2(limit));
        if !self.noted.swap(true, Ordering::Relaxed) {
            note_given_up(self.node, self.led.iter().map(|(_, call)| &*call.key), limit);
        }
    }
}
