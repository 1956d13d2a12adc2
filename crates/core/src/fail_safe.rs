//! The pure decision: may this stale entry stand in?

use crate::clock::Moment;
use crate::entry::Meta;
use crate::options::EntryOptions;
use crate::protocol::validity::Verdict;

/// Whether an entry may be answered as a fallback: fail-safe is on for the call, the entry is not
/// too old for it, and nothing has *removed* it.
pub(crate) fn may_serve_stale(
    meta: &Meta,
    verdict: Verdict,
    options: &EntryOptions,
    now: Moment,
) -> bool {
    let Some(fail_safe) = options.fail_safe else { return false };
    let admissible = !matches!(verdict, Verdict::Hidden(_)) || sabotaged!(FailSafeIgnoresHard);
    admissible && now.since(meta.created) <= fail_safe.max_duration && now < meta.physical
}
