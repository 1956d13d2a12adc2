//! Fails the flights whose task no longer runs.

use super::Node;
use crate::error::ErrorKind;
use crate::flight::{Cause, Failure, Flight, Outcome, Progress};
use crate::runtime::Place;

impl Node {
    /// Fails a flight whose task no longer runs.
    pub(crate) fn fail_lost_flight(&self, flight: &Flight) {
        if !matches!(flight.progress.read(), Progress::Done(_)) {
            let failure = self.lost(flight);
            self.flights.end(flight.hash, flight.id, |_| ());
            flight.progress.write(Progress::Done(Outcome::Failed(failure)));
        }
    }

    /// The failure of a load that did not finish: its task panicked, or its runtime has ended, which
    /// makes timers panic.
    pub(crate) fn lost(&self, flight: &Flight) -> Failure {
        let ended = || flight.place.get().is_some_and(Place::has_ended);
        let (kind, what, cause) = if std::thread::panicking() && !ended() {
            (ErrorKind::Closed, "its load panicked", Cause::Load)
        } else if self.closing.is_cancelled() {
            (ErrorKind::Closed, "its load was abandoned because the cache closes", Cause::Load)
        } else {
            self.home.check();
            let what = "the runtime of its load has ended or is no longer driven; call again";
            (ErrorKind::NoRuntime, what, Cause::Lost)
        };
        Failure { error: self.error(kind, &flight.key, what), stale: None, cause }
    }
}
