//! The cost of a hit, in L1 and in Redis, with larger values.

use anyhow::{Result, ensure};
use crinkle::Cache;

use super::Growth;
use crate::env::Env;
use crate::measure::{Contender, Side, race, thread_time, wall};
use crate::remote::{Crinkle, raw};

pub(super) fn values(env: &Env) -> Result<Growth> {
    let title = "A hit, against the size of the value";
    let mut growth = Growth::new("values", title, "bytes", "ns");
    for size in [100, 1_024, 10_240, 102_400, 1_048_576] {
        in_l1(env, &mut growth, size)?;
        in_l2(env, &mut growth, size)?;
    }
    let kind = "Values are text; in Redis as MessagePack. `redis_get` decodes nothing.";
    growth.notes.push(kind.to_owned());
    Ok(growth)
}

fn in_l1(env: &Env, growth: &mut Growth, size: usize) -> Result<()> {
    let cache = Cache::builder("values").build()?;
    env.runtime.block_on(cache.set("text", "x".repeat(size)).into_future())?;
    let hits = |n: u64| {
        let begun = thread_time();
        env.runtime.block_on(async {
            for _ in 0..n {
                let text =
                    cache.get_or_set("text", |_| async { crinkle::ok(String::new()) }).await?;
                ensure!(text.len() == size, "another value");
            }
            Ok(())
        })?;
        Ok(thread_time() - begun)
    };
    let mut contenders = [Contender::new("crinkle: L1", Side::Crinkle, hits)];
    for score in race(&mut contenders, env.timed())? {
        growth.add(score.name, size as u64, score.ns);
    }
    Ok(())
}

fn in_l2(env: &Env, growth: &mut Growth, size: usize) -> Result<()> {
    let remote = Crinkle { url: env.redis() };
    let (cache, mut connection) = env.runtime.block_on(async {
        let (cache, mut connection) = (remote.cache(1_000).await?, raw(&remote.url).await?);
        cache.set("text", "x".repeat(size)).await?;
        redis::cmd("SET").arg("raw:text").arg("x".repeat(size)).exec_async(&mut connection).await?;
        anyhow::Ok((cache, connection))
    })?;
    let hits = |n: u64| {
        let begun = wall();
        env.runtime.block_on(async {
            for _ in 0..n {
                let text =
                    cache.get::<String>("text").skip_l1_read(true).skip_l1_write(true).await?;
                ensure!(text.is_some_and(|text| text.len() == size), "another value");
            }
            Ok(())
        })?;
        Ok(begun.elapsed())
    };
    let gets = |n: u64| {
        let begun = wall();
        env.runtime.block_on(async {
            for _ in 0..n {
                let text: Vec<u8> =
                    redis::cmd("GET").arg("raw:text").query_async(&mut connection).await?;
                ensure!(text.len() == size, "another value");
            }
            Ok(())
        })?;
        Ok(begun.elapsed())
    };
    let mut contenders = [
        Contender::new("crinkle: L2", Side::Crinkle, hits),
        Contender::new("redis_get", Side::Floor, gets),
    ];
    for score in race(&mut contenders, env.counted(200, 50))? {
        growth.add(score.name, size as u64, score.ns);
    }
    Ok(())
}
