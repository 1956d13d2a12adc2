//! A reader: it reads every price through the cache in a loop, and reports new versions.
//!
//! It prints `saw <price> <version> <when>` when it first serves a version as fresh. Its input
//! reports acknowledged changes, `<price> <version> <when>`, so that it can count reads that were
//! too late to return an older version. When its input ends, it prints `done` and its counts.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use crinkle::{Cached, Moment};
use crinkle_examples::now;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio::sync::mpsc;

use crate::{BOUND, Node, PRICES, TAG, cache_key, load};

/// An acknowledged change.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    price: usize,
    version: u64,
    at: Moment,
}

/// Counts of the reads.
#[derive(Debug, Default)]
struct Counts {
    reads: u64,
    stale: u64,
    late: u64,
    back: u64,
}

pub(crate) async fn run(url: &str) -> Result<()> {
    let node = Node::join(url).await?;
    println!("ready");
    let (sender, mut acknowledged) = mpsc::unbounded_channel();
    let input = tokio::spawn(read_input(BufReader::new(tokio::io::stdin()).lines(), sender));
    let mut prices: [Price; PRICES] = std::array::from_fn(|_| Price::default());
    let mut counts = Counts::default();
    while !input.is_finished() {
        for (id, price) in prices.iter_mut().enumerate() {
            let started = now();
            let answer = read(&node, id).await?;
            counts.reads += 1;
            counts.stale += u64::from(answer.meta().is_stale());
            if answer.meta().is_stale() {
                continue;
            }
            counts.late += u64::from(price.must_be(started) > *answer);
            counts.back += u64::from(price.served > *answer);
            if *answer > price.served {
                price.served = *answer;
                println!("saw {id} {} {}", *answer, now().as_nanos());
            }
        }
        while let Ok(Acknowledged { price, version, at }) = acknowledged.try_recv() {
            prices[price].acknowledge(version, at);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    input.await??;
    let stats = node.cache.stats();
    let Counts { reads, stale, late, back } = counts;
    println!(
        "done {reads} {stale} {late} {back} {} {} {}",
        stats.l1_hits, stats.l2_hits, stats.factory_calls
    );
    Ok(())
}

async fn read(node: &Node, price: usize) -> Result<Cached<u64>> {
    let source = node.source.clone();
    let key = cache_key(price);
    Ok(node.cache.get_or_set(&key, move |_| load(source, price)).tags([TAG]).await?)
}

async fn read_input(
    mut lines: Lines<BufReader<Stdin>>,
    sender: mpsc::UnboundedSender<Acknowledged>,
) -> Result<()> {
    while let Some(line) = lines.next_line().await? {
        let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [price, version, at] = numbers[..] else {
            bail!("unexpected line for the reader: {line:?}")
        };
        let (price, at) = (usize::try_from(price)?, Moment::from_nanos(at));
        sender.send(Acknowledged { price, version, at }).context("the reader has ended")?;
    }
    Ok(())
}

/// The state of one price.
#[derive(Debug, Default)]
struct Price {
    /// The newest version served as fresh.
    served: u64,
    /// The oldest version that a read starting now may return.
    due: u64,
    /// Acknowledged versions, and from when on a read must return them.
    upcoming: VecDeque<(u64, Moment)>,
}

impl Price {
    /// Returns the oldest version that a fresh answer may have, for a read that started then.
    fn must_be(&mut self, started: Moment) -> u64 {
        while let Some((version, _)) = self.upcoming.front().filter(|(_, from)| *from < started) {
            self.due = self.due.max(*version);
            self.upcoming.pop_front();
        }
        self.due
    }

    fn acknowledge(&mut self, version: u64, at: Moment) {
        self.upcoming.push_back((version, at + BOUND));
    }
}
