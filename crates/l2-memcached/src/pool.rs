//! A few connections, used in turn, and the server's clock.

use std::time::Duration;

use async_memcached::Client;
use crinkle_core::l2::{L2Error, L2ErrorKind};
use crinkle_core::{Clock, Moment, SystemClock};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::l2_error;

/// How many calls may be under way at once; more wait.
const CONNECTIONS: usize = 16;

/// How long the server's clock is trusted before it is asked again.
const TRUST: Duration = Duration::from_secs(60);

/// How much an observed clock may be behind for being told in whole seconds.
const GRAIN_US: u64 = 1_000_000;

pub(crate) struct Pool {
    url: String,
    idle: Mutex<Vec<Connected>>,
    permits: Semaphore,
    time: Mutex<Time>,
}

/// One process of a server, and no other after it: its id and when it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Server {
    pid: u64,
    began: u64,
}

struct Connected {
    client: Client,
    server: Server,
}

/// The server's clock minus ours, in microseconds, and when it was last asked.
#[derive(Default)]
struct Time {
    of: Server,
    ahead: u64,
    asked: Moment,
}

/// A connection for one call; goes back if the call left it in order.
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

    /// Microseconds on the server's clock; on ours before the first answer.
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
            // Left over from a process that is gone.
            inner = self.observed(inner.client).await?;
        }
        Ok(Connection { pool: self, inner: Some(inner), _permit: permit })
    }

    /// Something is wrong with a connection, so probably with all of them.
    pub(crate) fn forget(&self) {
        self.idle.lock().clear();
    }

    /// Asks a server who it is and what time it has.
    async fn observed(&self, mut client: Client) -> Result<Connected, L2Error> {
        let stats = client.stats().await.inspect_err(|_| self.forget()).map_err(l2_error)?;
        let number = |name| stats.get(name).and_then(|value| value.parse::<u64>().ok());
        let (Some(pid), Some(time), Some(uptime)) =
            (number("pid"), number("time"), number("uptime"))
        else {
            let what = "its `stats` do not tell its pid, time and uptime";
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

    /// Whole seconds are cut off, so of what is told within one the latest is nearest.
    fn observe(&mut self, server: Server, told_us: u64, now: Moment) {
        let ahead = told_us.saturating_sub(micros(now));
        if server != self.of || ahead > self.ahead || ahead.saturating_add(GRAIN_US) < self.ahead {
            self.ahead = ahead;
        }
        (self.of, self.asked) = (server, now);
    }
}

impl Connection<'_> {
    /// Which process it leads to.
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
                // A timeout closes one; an error closes it because the server is gone.
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
        assert_eq!(time.ahead, 90_000_000, "a second less is what was cut off");
        time.observe(one, 120_000_000, at(29));
        assert_eq!(time.ahead, 91_000_000, "a second more is nearer");
        time.observe(one, 130_000_000, at(45));
        assert_eq!(time.ahead, 85_000_000, "more than a second less is another pace");
        time.observe(two, 130_000_000, at(45) + Duration::from_micros(1));
        assert_eq!(time.ahead, 84_999_999, "another process has another clock");
        time.observe(one, u64::MAX, at(46));
        time.observe(two, u64::MAX, at(45));
        assert_eq!(time.ahead, u64::MAX - 45_000_000, "and one that lies is no panic");
    }
}
