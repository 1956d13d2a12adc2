//! The cost of a removal, and the time until all processes know it, by number of processes.

use anyhow::Result;

use super::Growth;
use crate::env::Env;
use crate::measure::{median, nanos, wall};
use crate::rows::{Listeners, Sender};

pub(super) fn nodes(env: &Env) -> Result<Growth> {
    let title = "A removal, against the number of processes";
    let mut growth = Growth::new("nodes", title, "processes", "us");
    let removals = env.pick(500, 100);
    for count in [1, 2, 4, 8] {
        let mut listeners = Listeners::start(env, count)?;
        for (who, label) in [(Sender::Crinkle, "crinkle"), (Sender::Bare, "bare_publish")] {
            let (mut calls, mut last) = (Vec::new(), Vec::new());
            for at in 0..removals {
                let begun = wall();
                let sent = listeners.send(env, who, at)?;
                calls.push(nanos(begun.elapsed()) / 1e3);
                last.push(listeners.last_received(who, sent)?);
            }
            growth.add(&format!("{label}: the call"), count as u64, median(calls));
            growth.add(&format!("{label}: until all have received it"), count as u64, median(last));
        }
    }
    let load = "All processes and the server share the processors of one machine.";
    growth.notes.push(load.to_owned());
    Ok(growth)
}
