//! A pool of connections, and the server's clock.

use std::time::Duration;

use async_memcached::Client;
use crinkle_core::l2::{L2Error, L2ErrorKind};
use crinkle_core::{Clock, Moment, SystemClock};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::l2_error;

/// Most concurrent calls; further calls wait.
const CONNECTIONS: usize = 16;

/// How long an observed clock is used before the client asks again.
const TRUST: Duration = Duration::from_secs(60);

/// How much an observed clock may be behind, since the server reports whole seconds.
const GRAIN_US: u64 = 1_000_000;

pub(crate) struct Pool {
    url: String,
    idle: Mutex<Vec<Connected>>,
    permits: Semaphore,
    time: Mutex<Time>,
}

/// Identity of one server process: its id and its start time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Server {
    pid: u64,
    began: u64,
}

struct Connected {
    client: Client,
    server: Server,
}

/// The server's clock minus ours, in microseconds, and when the client last asked for it.
#[derive(Default)]
struct Time {
    of: Server,
    ahead: u64,
    asked: Moment,
}

/// A connection for one call. It returns to the pool unless the call broke it.
pub(crate) struct Connection<'a> {
    pool: &'a Pool,
    inner: Option<Connected>,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(crate) fn new(url: String) -> Self {
        let (idle, time) = (Mutex::default(), Mutex::default());
        Self { url, idle, permits: Semaphore::new(CONNECTIONS), time }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Time on the server's clock, in microseconds; on ours before the first answer.
    pub(crate) fn now_us(&self) -> u64 {
        self.time.lock().ahead.saturating_add(micros(SystemClock.now()))
    }

    pub(crate) async fn connection(&self) -> Result<Connection<'_>, L2Error> {
        let permit = self.permits.acquire().await;
        let permit = permit.map_err(|error| L2Error::new(L2ErrorKind::Disconnected, error))?;
        let idle = self.idle.lock().pop();
        let mut inner = match idle {
            Some(connected) if !self.time.lock().is_due() => connected,
            Some(connected) => self.observed(connected.client).await?,
            None => self.observed(Client::new(&self.url).await.map_err(l2_error)?).await?,
        };
        if inner.server != self.time.lock().of {
            // Opened to an earlier server process.
            inner = self.observed(inner.client).await?;
        }
        Ok(Connection { pool: self, inner: Some(inner), _permit: permit })
    }

    /// Drops all idle connections: an error on one makes the others suspect.
    pub(crate) fn forget(&self) {
        self.idle.lock().clear();
    }

    /// Asks the server for its identity and its time.
    async fn observed(&self, mut client: Client) -> Result<Connected, L2Error> {
        let stats = client.stats().await.inspect_err(|_| self.forget()).map_err(l2_error)?;
        let number = |name| stats.get(name).and_then(|value| value.parse::<u64>().ok());
        let (Some(pid), Some(time), Some(uptime)) =
            (number("pid"), number("time"), number("uptime"))
        else {
            let what = "the server's `stats` lack pid, time or uptime";
            return Err(L2Error::new(L2ErrorKind::Other, what));
        };
        let server = Server { pid, began: time.saturating_sub(uptime) };
        self.time.lock().observe(server, time.saturating_mul(1_000_000), SystemClock.now());
        Ok(Connected { client, server })
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Time {
    fn is_due(&self) -> bool {
        SystemClock.now().since(self.asked) > TRUST
    }

    /// Notes an observation. The server truncates to whole seconds, so within one second the latest
    /// difference is the most exact.
    fn observe(&mut self, server: Server, reported_us: u64, now: Moment) {
        let ahead = reported_us.saturating_sub(micros(now));
        if server != self.of || ahead > self.ahead || ahead.saturating_add(GRAIN_US) < self.ahead {
            self.ahead = ahead;
        }
        (self.of, self.asked) = (server, now);
    }
}

impl Connection<'_> {
    /// The server process at the other end.
    pub(crate) fn server(&self) -> Server {
        self.inner.as_ref().map_or_else(Server::default, |inner| inner.server)
    }

    pub(crate) fn client(&mut self) -> Result<&mut Client, L2Error> {
        let gone = || L2Error::new(L2ErrorKind::Disconnected, "the connection is gone");
        self.inner.as_mut().map(|inner| &mut inner.client).ok_or_else(gone)
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            if inner.client.is_closed() {
                // Closed by a timeout, or by an error of a lost server.
                return;
            }
            self.pool.idle.lock().push(inner);
        }
    }
}

fn micros(moment: Moment) -> u64 {
    moment.as_nanos() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_follows_the_server_in_spite_of_whole_seconds() {
        let (one, two) = (Server { pid: 1, began: 9 }, Server { pid: 1, began: 50 });
        let at = |secs: u64| Moment::from_nanos(secs * 1_000_000_000);
        let mut time = Time::default();
        time.observe(one, 100_000_000, at(10));
        assert_eq!(time.ahead, 90_000_000);
        time.observe(one, 110_000_000, at(21));
        assert_eq!(time.ahead, 90_000_000, "a second less comes from the truncation");
        time.observe(one, 120_000_000, at(29));
        assert_eq!(time.ahead, 91_000_000, "a second more is more exact");
        time.observe(one, 130_000_000, at(45));
        assert_eq!(time.ahead, 85_000_000, "more than a second less means that the clocks drift");
        time.observe(two, 130_000_000, at(45) + Duration::from_micros(1));
        assert_eq!(time.ahead, 84_999_999, "another process has another clock");
        time.observe(one, u64::MAX, at(46));
        time.observe(two, u64::MAX, at(45));
        assert_eq!(time.ahead, u64::MAX - 45_000_000, "a wrong time does not panic");
    }
}
