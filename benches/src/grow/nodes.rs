//! What a removal costs, and how long until all know, with more processes.

use anyhow::Result;

use super::Growth;
use crate::env::Env;
use crate::measure::{median, nanos, wall};
use crate::rows::{Ears, Who};

pub(super) fn nodes(env: &Env) -> Result<Growth> {
    let title = "A removal, against the number of processes";
    let mut growth = Growth::new("nodes", title, "processes", "us");
    let removals = env.pick(500, 100);
    for count in [1, 2, 4, 8] {
        let mut ears = Ears::start(env, count)?;
        for (who, label) in [(Who::Crinkle, "crinkle"), (Who::Bare, "bare_publish")] {
            let (mut calls, mut last) = (Vec::new(), Vec::new());
            for at in 0..removals {
                let begun = wall();
                let sent = ears.send(env, who, at)?;
                calls.push(nanos(begun.elapsed()) / 1e3);
                last.push(ears.last_heard(who, sent)?);
            }
            growth.add(&format!("{label}: the call"), count as u64, median(calls));
            growth.add(&format!("{label}: until all have heard"), count as u64, median(last));
        }
    }
    let load = "All processes and the server share the processors of one machine.";
    growth.notes.push(load.to_owned());
    Ok(growth)
}
