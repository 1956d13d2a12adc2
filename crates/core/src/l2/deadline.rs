//! The deadline of a `set`, and its time on the server's own clock.
//!
//! Times of one server are compared only with times of the same server. A reply says what its clock
//! shows, and this process measures the time since.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{Clock, Moment, nanos};

/// How long after the limit of its call a `set` may still run.
const SLACK: Duration = Duration::from_millis(500);

/// The rate at which a server's clock may run slow before a `set` reaches it: one part in this
/// many, as when it is slewed. A larger loss is a step.
const LOSES_ONE_IN: u32 = 8;

/// How far a server's clock may step back before a `set` reaches it.
const STEP: Duration = Duration::from_millis(500);

/// Guards against a delayed `set`: the latest time at which it may run, on a clock of the caller
/// that only this process can read. See [`L2::set`](super::L2::set).
#[derive(Clone, Debug)]
pub struct Deadline {
    clock: Arc<dyn Clock>,
    at: Moment,
}

impl Deadline {
    /// A deadline this long from now.
    #[must_use]
    pub fn after(clock: Arc<dyn Clock>, limit: Duration) -> Self {
        let at = clock.now() + limit;
        Self { clock, at }
    }

    /// The deadline of a `set` that is sent now with this limit.
    pub(crate) fn of_call(clock: Arc<dyn Clock>, limit: Duration) -> Self {
        Self::after(clock, limit.saturating_add(SLACK))
    }

    /// The remaining time; zero after the deadline.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.at.since(self.clock.now())
    }

    /// Whether a `set` is late now.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.clock.now() >= self.at
    }
}

/// How long after it was sent a `set` with this limit can no longer run, on any server that keeps
/// the contract of [`L2::set`](super::L2::set). This is the sum of its deadline, the time that the
/// server's clock may have lost since the sample, and its largest step back.
pub(crate) fn settles_after(limit: Duration) -> Duration {
    let deadline = limit.saturating_add(SLACK);
    let lost = deadline.saturating_add(ServerTime::MAX_AGE) / (LOSES_ONE_IN - 1);
    deadline.saturating_add(lost).saturating_add(STEP)
}

/// Estimates one server's clock from that server's replies, for a store whose server checks the
/// [`Deadline`] of a `set` itself. It belongs to one connection: another connection may reach
/// another server.
///
/// A reply that contains `T` and was received at `b` proves that at `b` the clock showed at least
/// `T`. So `T + (deadline - b)` is never later than the deadline, whatever the clock is set to and
/// however long the reply took. The assumption: between the sample and the deadline, the clock
/// loses no more than an eighth and does not step back by more than half a second. The cache
/// accounts for both.
///
/// ```
/// use crinkle_core::l2::{Deadline, ServerTime};
/// use crinkle_core::{Clock, ManualClock};
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// let clock = Arc::new(ManualClock::new());
/// let deadline = Deadline::after(clock.clone(), Duration::from_secs(2));
/// let time = ServerTime::default();
/// assert_eq!(time.latest_us(&deadline, &*clock), None, "the server has to be asked first");
/// let asked = clock.now();
/// clock.advance(Duration::from_secs(1));
/// time.learn(5_000_000, asked, clock.now());
/// assert_eq!(time.latest_us(&deadline, &*clock), Some(6_000_000));
/// ```
#[derive(Debug, Default)]
pub struct ServerTime(Mutex<Option<Sample>>);

#[derive(Clone, Copy, Debug)]
struct Sample {
    us: u64,
    received: Moment,
}

impl Sample {
    fn at(self, now: Moment) -> u64 {
        self.us.saturating_add(micros(now.since(self.received)))
    }
}

impl ServerTime {
    /// The maximum age of a sample.
    pub const MAX_AGE: Duration = Duration::from_secs(5);

    /// The maximum age of a sample when a newer one with a longer round trip is available.
    const BEST_FOR: Duration = Duration::from_secs(2);

    /// Records the time in a reply: `time_us` is in microseconds since any origin, and the request
    /// was sent at `asked`. Both moments are of the clock that [`latest_us`](Self::latest_us) gets.
    pub fn learn(&self, time_us: u64, asked: Moment, received: Moment) {
        let new = Sample { us: time_us, received };
        let mut sample = self.0.lock();
        let keeps = sample.is_some_and(|old| {
            let known = old.at(received);
            // A larger value than this reply allows means that the clock has gone back.
            let possible = time_us.saturating_add(micros(received.since(asked)));
            (time_us..=possible).contains(&known) && received.since(old.received) < Self::BEST_FOR
        });
        if !keeps {
            *sample = Some(new);
        }
    }

    /// The server's time at the deadline, or slightly less. `None` if it is unknown: request the
    /// server's time first. `clock` gives the current moment, to compare with the recorded ones.
    #[must_use]
    pub fn latest_us(&self, deadline: &Deadline, clock: &dyn Clock) -> Option<u64> {
        // In this order: a delay in between makes the result earlier.
        let now = clock.now();
        let left = deadline.left();
        let sample = (*self.0.lock())?;
        let known = now.since(sample.received) <= Self::MAX_AGE;
        known.then(|| sample.at(now).saturating_add(micros(left)))
    }

    /// Whether a new sample is due, well before the old one expires.
    #[must_use]
    pub fn is_due(&self, now: Moment) -> bool {
        self.0.lock().is_none_or(|sample| now.since(sample.received) >= Self::MAX_AGE / 10)
    }

    /// Drops the sample, because the clock has changed.
    pub fn forget(&self) {
        *self.0.lock() = None;
    }
}

fn micros(time: Duration) -> u64 {
    nanos(time) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::options::{LONGEST_HARD_TIMEOUT, Settings};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A server's clock: an offset and a rate, in parts per thousand.
    #[derive(Clone, Copy)]
    struct Server {
        ahead_us: u64,
        rate: u64,
    }

    impl Server {
        fn shows(self, now: Moment) -> u64 {
            self.ahead_us + now.as_nanos() / 1000 * self.rate / 1000
        }
    }

    /// The bound of S10, for all clocks and round trips. The server never reaches the latest time
    /// after the cache considers the `set` settled. With a correct clock it never reaches it before
    /// the limit of the call.
    #[test]
    fn the_latest_time_of_a_set_is_never_later_than_what_the_cache_waits_for() {
        for limit in [ms(1), ms(50), ms(1000), ms(3000), ms(60_000), LONGEST_HARD_TIMEOUT] {
            for rate in [875, 900, 999, 1000, 1001, 1100] {
                for (out, back) in [(0, 0), (1, 1), (0, 2900), (2900, 0), (400, 10)] {
                    for age in [0, 100, 2500, 5000] {
                        let server = Server { ahead_us: 77_000_000_000, rate };
                        let case = format!("{limit:?} {rate} {out}+{back} ms, {age} ms old");
                        check(server, limit, [ms(out), ms(back), ms(age)], &case);
                    }
                }
            }
        }
    }

    fn check(server: Server, limit: Duration, [out, back, age]: [Duration; 3], case: &str) {
        let clock = Arc::new(ManualClock::new());
        let (time, asked) = (ServerTime::default(), clock.now());
        clock.advance(out);
        let said = server.shows(clock.now());
        clock.advance(back);
        time.learn(said, asked, clock.now());
        clock.advance(age);
        let sent = clock.now();
        let deadline = Deadline::of_call(Arc::<ManualClock>::clone(&clock), limit);
        let latest = time.latest_us(&deadline, &*clock).expect(case);
        let settled = sent + settles_after(limit);
        assert!(server.shows(settled) > latest, "{case}: it may run after it was settled");
        if server.rate == 1000 {
            let meant = server.shows(sent + limit + SLACK);
            assert!(meant >= latest, "{case}: later than meant");
            assert!(meant <= latest + micros(back), "{case}: earlier than the reply explains");
        }
    }

    /// A `set` of the longest legal limit that is stored late expires before the removals that hide
    /// it are dropped. With the shortest retention there is an hour to spare.
    #[test]
    fn a_set_is_settled_within_the_margin_that_removals_are_kept_for() {
        let settings = Settings::default();
        let least = settings.max_lifetime + settings.poll;
        let margin = settings.retention(Duration::ZERO).saturating_sub(least);
        assert!(settles_after(LONGEST_HARD_TIMEOUT) < margin, "{margin:?}");
    }

    #[test]
    fn an_old_sample_is_none_and_a_better_one_stays() {
        let clock = Arc::new(ManualClock::new());
        let (time, asked) = (ServerTime::default(), clock.now());
        let limit = Deadline::after(Arc::<ManualClock>::clone(&clock), Duration::from_secs(60));
        time.learn(1_000_000, asked, clock.now());
        let best = time.latest_us(&limit, &*clock).unwrap();
        clock.advance(ms(1000));
        // Requested with the first, sent half way, received now.
        time.learn(1_500_000, asked, clock.now());
        assert_eq!(time.latest_us(&limit, &*clock), Some(best), "the first knew more");
        clock.advance(ms(6000));
        assert_eq!(time.latest_us(&limit, &*clock), None);
    }

    #[test]
    fn a_clock_that_went_back_is_believed_at_once() {
        let clock = Arc::new(ManualClock::new());
        let time = ServerTime::default();
        time.learn(100_000_000, clock.now(), clock.now());
        clock.advance(ms(10));
        time.learn(70_000_000, clock.now(), clock.now());
        let limit = Deadline::after(Arc::<ManualClock>::clone(&clock), ms(0));
        assert_eq!(time.latest_us(&limit, &*clock), Some(70_000_000));
        time.forget();
        assert_eq!(time.latest_us(&limit, &*clock), None);
    }
}
