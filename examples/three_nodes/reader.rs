//! A reader: asks the cache for every price, over and over, and reports what is new.
//!
//! Prints `saw <price> <version> <when>` when it first serves a version as fresh. Its input tells it
//! what was acknowledged, `<price> <version> <when>`, so that it can count the reads that came too
//! late to be old. When its input ends it prints `done` and its counts.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use crinkle::{Cached, Moment};
use crinkle_examples::now;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio::sync::mpsc;

use crate::{BOUND, Node, PRICES, TAG, cache_key, load};

/// A change that was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    price: usize,
    version: u64,
    at: Moment,
}

/// What the reads amounted to.
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
    let (tell, mut told) = mpsc::unbounded_channel();
    let listening = tokio::spawn(listen(BufReader::new(tokio::io::stdin()).lines(), tell));
    let mut prices: [Price; PRICES] = std::array::from_fn(|_| Price::default());
    let mut counts = Counts::default();
    while !listening.is_finished() {
        for (id, price) in prices.iter_mut().enumerate() {
            let started = now();
            let answer = read(&node, id).await?;
            counts.reads += 1;
            counts.stale += u64::from(answer.is_stale());
            if answer.is_stale() {
                continue;
            }
            counts.late += u64::from(price.must_be(started) > *answer);
            counts.back += u64::from(price.served > *answer);
            if *answer > price.served {
                price.served = *answer;
                println!("saw {id} {} {}", *answer, now().as_nanos());
            }
        }
        while let Ok(Acknowledged { price, version, at }) = told.try_recv() {
            prices[price].acknowledge(version, at);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    listening.await??;
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

async fn listen(
    mut lines: Lines<BufReader<Stdin>>,
    tell: mpsc::UnboundedSender<Acknowledged>,
) -> Result<()> {
    while let Some(line) = lines.next_line().await? {
        let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [price, version, at] = numbers[..] else { bail!("the reader heard {line:?}") };
        let (price, at) = (usize::try_from(price)?, Moment::from_nanos(at));
        tell.send(Acknowledged { price, version, at }).context("the reader has ended")?;
    }
    Ok(())
}

/// What a reader knows of one price.
#[derive(Debug, Default)]
struct Price {
    /// The newest version it served as fresh.
    served: u64,
    /// What a read must bring that starts now.
    due: u64,
    /// What was acknowledged, and from when on a read must bring it.
    coming: VecDeque<(u64, Moment)>,
}

impl Price {
    /// The least version that a fresh answer may have, to a read that started then.
    fn must_be(&mut self, started: Moment) -> u64 {
        while let Some((version, _)) = self.coming.front().filter(|(_, from)| *from < started) {
            self.due = self.due.max(*version);
            self.coming.pop_front();
        }
        self.due
    }

    fn acknowledge(&mut self, version: u64, at: Moment) {
        self.coming.push_back((version, at + BOUND));
    }
}
