//! A trace of real accesses, replayed on three nodes.

use anyhow::Result;

use crate::board::Board;
use crate::env::Env;
use crate::peers;
use crate::remote::Crinkle;
use crate::row::Row;
use crate::trace::{Input, NODES, Told, WRITES, bare_moka, replay};

/// The rows of the given trace, or of the draws.
pub(crate) fn rows(env: &Env, board: &mut Board) -> Result<()> {
    let input = match &env.arguments.trace {
        Some(path) => Input::read(path, env.pick(usize::MAX, 50_000))?,
        None => Input::drawn(env.pick(500_000, 15_000)),
    };
    let name = format!("trace/{}", input.name);
    let parts =
        ["", "/origin_calls", "/stale_answers", "/seconds"].map(|part| format!("{name}{part}"));
    if !parts.iter().any(|part| board.wants(part)) {
        return Ok(());
    }
    let url = env.redis();
    let capacity = input.pages / 10;
    let crinkle = env.runtime.block_on(async {
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            nodes.push(Crinkle { url: url.clone() }.cache(capacity as u64).await?);
        }
        replay(&nodes, &input, None).await
    })?;
    let moka = bare_moka(&input, capacity);
    let others = peers::traced(env, &url, capacity, &input)?;
    push(board, parts, &crinkle, moka, &others, &input);
    Ok(())
}

fn push(
    board: &mut Board,
    names: [String; 4],
    crinkle: &Told,
    moka: f64,
    others: &[(&'static str, Told)],
    input: &Input,
) {
    let [hits, origin, stale, seconds] = names;
    let mut rows = [
        Row::new(hits, "hit ratio of L1", crinkle.hit_ratio()).upwards().floor("moka", moka),
        Row::new(origin, "calls", crinkle.origin_calls as f64),
        Row::new(stale, "answers", crinkle.stale as f64).goal(
            "= 0".to_owned(),
            crinkle.stale as f64,
            crinkle.stale == 0,
        ),
        Row::new(seconds, "s", crinkle.seconds),
    ];
    for (name, told) in others {
        let values = [told.hit_ratio(), told.origin_calls as f64, told.stale as f64, told.seconds];
        for (row, value) in rows.iter_mut().zip(values) {
            row.peers.insert(name, value);
        }
        if told.requests < input.requests.len() as u64 {
            let all = input.requests.len();
            rows[0].notes.push(format!("{name}: {} of {all} requests within 20 s", told.requests));
        }
    }
    rows[0].notes.push(format!(
        "{} requests for {} pages; {NODES} nodes, each with L1 for a tenth of the pages; one request in {} \
         changes its page and removes it",
        input.requests.len(),
        input.pages,
        WRITES
    ));
    rows.into_iter().for_each(|row| board.push(row));
}
