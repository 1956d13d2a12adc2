//! Decides which slots to use when the servers of a cluster disagree.
//!
//! An isolated primary, or a replica that has not learned of a failover, reports an old owner of
//! its slots. If the answer of one server matches the known slots, no other server is asked.
//! Otherwise the others are asked too. Each slot gets the owner that most servers report; on a tie,
//! the known one.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::Cluster;
use super::slots::{Address, Slots};
use crate::settings::CONNECT_TIMEOUT;

/// Most servers that one refresh asks.
const MOST_ASKED: usize = 15;

impl Cluster {
    /// The slots to use, given that `from` reports `says`; `others` are further servers to ask.
    pub(crate) async fn believed(
        &self,
        from: &Address,
        says: Arc<Slots>,
        others: &[Address],
    ) -> Arc<Slots> {
        let known = self.known_slots();
        if known.as_ref().is_some_and(|known| known.has_owners_of(&says)) {
            return says;
        }
        let mut asked = BTreeSet::from([from.clone()]);
        let mut wanted = [says.servers(), others.to_vec()].concat();
        let (mut views, mut answers) = (vec![says], FuturesUnordered::new());
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        loop {
            for server in wanted.drain(..) {
                if asked.len() < MOST_ASKED && asked.insert(server.clone()) {
                    answers.push(async move { self.ask(&server).await });
                }
            }
            let most_agree = views.len() * 2 > asked.len();
            if most_agree && views.iter().all(|view| view.has_owners_of(&views[0])) {
                break;
            }
            match timeout_at(deadline, answers.next()).await {
                Ok(Some(Ok(view))) => {
                    wanted = view.servers();
                    views.push(view);
                }
                Ok(Some(Err(_))) => {}
                Ok(None) | Err(_) => break,
            }
        }
        let believed = Slots::of_most(&views, known.as_deref());
        let minority = views.iter().filter(|view| !view.has_owners_of(&believed)).count();
        if minority > 0 {
            let servers = views.len();
            tracing::debug!(minority, servers, "the servers of the cluster disagree on the slots");
        }
        Arc::new(believed)
    }
}
