//! Decides whether fail-safe may serve a stale entry. Pure.

use crate::clock::Moment;
use crate::entry::Meta;
use crate::options::EntryOptions;
use crate::protocol::validity::Verdict;

/// Whether a call may get this entry as a fallback.
///
/// It may if it uses fail-safe, the entry is not too old for it, and no removal hides the entry.
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
