//! The cost of a hit with more entries, more tags per entry, and more removed tags.

use anyhow::Result;

use super::Growth;
use crate::env::Env;
use crate::hits::{GetOrSetNaming, Hits, crinkle_of, crinkle_tagged, floors, on_one_thread};
use crate::measure::{nanos, race, wall};
use crate::workload::Draws;

/// Amalgam keeps at most this many distinct tags; with more, it clears the cache.
const AMALGAM_KEEPS: u64 = 4_000;

pub(super) fn entries(env: &Env) -> Result<Growth> {
    let mut growth =
        Growth::new("entries", "A hit, against the number of entries", "entries", "ns");
    let sizes: &[usize] = env.pick(&[1_000, 10_000, 100_000, 1_000_000], &[1_000, 10_000, 100_000]);
    for size in sizes {
        let draws = Draws::of(*size);
        let mut everybody = vec![env.runtime.block_on(crinkle_tagged(&draws, 0))?.hits];
        everybody.extend(floors(&draws));
        everybody.extend(crate::peers::tagged(env, &draws, 0)?.into_iter().map(|peer| peer.hits));
        compare(env, &draws, &everybody, &mut growth, *size as u64)?;
    }
    let law = "Keys are drawn by Zipf's law (0.99), so a larger cache is also a colder one.";
    growth.notes.push(law.to_owned());
    Ok(growth)
}

pub(super) fn tags_each(env: &Env) -> Result<Growth> {
    let mut growth = Growth::new("tags", "A hit, against the tags of the entry", "tags", "ns");
    let draws = Draws::hot();
    for count in [0, 1, 2, 4, 8, 16, 32] {
        let cache = env.runtime.block_on(crinkle_of(&draws, count))?;
        let mut everybody: Vec<Box<dyn Hits>> = vec![Box::new(GetOrSetNaming { cache, count })];
        everybody
            .extend(crate::peers::tagged(env, &draws, count)?.into_iter().map(|peer| peer.hits));
        compare(env, &draws, &everybody, &mut growth, count as u64)?;
    }
    Ok(growth)
}

pub(super) fn removed(env: &Env) -> Result<Growth> {
    let title = "A hit on an entry with ten tags, against the distinct tags removed before";
    let mut growth = Growth::new("removed", title, "tags removed", "ns");
    let draws = Draws::hot();
    let mut everybody = vec![env.runtime.block_on(crinkle_tagged(&draws, 10))?];
    everybody.extend(crate::peers::tagged(env, &draws, 10)?);
    let mut before = 0;
    for total in env.pick(&[0, 100, 1_000, 4_000, 10_000, 100_000][..], &[0, 100, 1_000, 10_000]) {
        for tagged in everybody.iter().filter(|tagged| keeps(&*tagged.hits, *total)) {
            let begun = wall();
            env.runtime.block_on(async {
                for at in before..*total {
                    (tagged.remove)(format!("other:{at}")).await;
                }
            });
            if *total > before {
                let each = nanos(begun.elapsed()) / (total - before) as f64;
                growth.add(&format!("{}: a removal", tagged.hits.name()), *total, each);
            }
        }
        let hits = everybody.iter().map(|tagged| &*tagged.hits);
        let hits: Vec<_> = hits.filter(|hits| keeps(*hits, *total)).collect();
        let mut contenders: Vec<_> =
            hits.iter().map(|hits| on_one_thread(env, &draws, *hits)).collect();
        for score in race(&mut contenders, env.timed())? {
            growth.add(score.name, *total, score.ns);
        }
        before = *total;
    }
    growth.notes.push(format!(
        "amalgam keeps 4,096 removed tags and clears the cache when there is one more; it is measured up \
         to {AMALGAM_KEEPS}."
    ));
    Ok(growth)
}

fn keeps(hits: &dyn Hits, tags: u64) -> bool {
    hits.name() == "crinkle" || tags <= AMALGAM_KEEPS
}

fn compare(
    env: &Env,
    draws: &Draws,
    everybody: &[Box<dyn Hits>],
    growth: &mut Growth,
    at: u64,
) -> Result<()> {
    let mut contenders = Vec::new();
    for hits in everybody {
        contenders.push(on_one_thread(env, draws, &**hits));
    }
    for score in race(&mut contenders, env.timed())? {
        growth.add(score.name, at, score.ns);
    }
    Ok(())
}
