//! The scoreboard without its peers: the feature `peers` is off.

use anyhow::Result;

use crate::env::Env;
use crate::hits::{Hits, Tagged};
use crate::remote::Remote;
use crate::row::Numbers;
use crate::trace::{Input, Told};
use crate::workload::Draws;

#[expect(clippy::unnecessary_wraps, reason = "as with peers")]
pub(crate) fn all(_: &Env, _: &Draws) -> Result<Vec<Box<dyn Hits>>> {
    Ok(Vec::new())
}

#[expect(clippy::unnecessary_wraps, reason = "as with peers")]
pub(crate) fn tagged(_: &Env, _: &Draws, _: usize) -> Result<Vec<Tagged>> {
    Ok(Vec::new())
}

pub(crate) fn hits_in_l2(_: &str) -> Vec<Box<dyn Remote>> {
    Vec::new()
}

pub(crate) fn misses(_: &str) -> Vec<Box<dyn Remote>> {
    Vec::new()
}

#[expect(clippy::unnecessary_wraps, reason = "as with peers")]
pub(crate) fn memory(_: &Env, _: usize, _: usize) -> Result<Numbers> {
    Ok(Numbers::new())
}

#[expect(clippy::unnecessary_wraps, reason = "as with peers")]
pub(crate) fn traced(_: &Env, _: &str, _: usize, _: &Input) -> Result<Vec<(&'static str, Told)>> {
    Ok(Vec::new())
}
