use std::collections::HashMap;

use async_memcached::{Error, MetaProtocol, MetaValue, Status};
use async_trait::async_trait;
use crinkle_core::l2::{L2Error, L2ErrorKind};
use crinkle_core::protocol::KeyHash;
use crinkle_l2_cas::{CasEntry, CasStore, Stored};

use crate::error::l2_error;
use crate::pool::{Pool, Server};

/// The longest key of memcached, in bytes.
const MAX_KEY: usize = 250;

/// Longest TTL: memcached reads a larger number as a date. Values with a longer TTL are stored
/// without one, and stay until they are evicted.
const MAX_TTL_SECS: u64 = 30 * 24 * 3600;

/// How many keys one request asks for: few enough to be sent before the answer must be read.
const AT_ONCE: usize = 100;

/// A memcached server, for [`CasL2`](crinkle_l2_cas::CasL2). Keeps up to 16 connections. To share
/// the L2, put it in an `Arc`.
///
/// The store does not repeat a failed call: the cache decides what to do.
#[derive(Debug)]
pub struct Memcached {
    pool: Pool,
}

/// Identity of a value's state: the compare-and-swap number, and the process that issued it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    cas: u64,
    server: Server,
}

impl Memcached {
    /// Creates a store on the server at `tcp://host:port` (IPv4) or `unix://path`. It connects with
    /// the first call, so a server that is down is no error.
    ///
    /// # Errors
    ///
    /// If the URL has another form.
    pub fn connect(url: &str) -> Result<Self, L2Error> {
        if !["tcp://", "unix://"].iter().any(|scheme| url.starts_with(scheme)) {
            let what = format!("the URL {url:?} is neither tcp://host:port nor unix://path");
            return Err(L2Error::new(L2ErrorKind::Denied, what));
        }
        Ok(Self { pool: Pool::new(url.to_owned()) })
    }

    /// The server's URL.
    pub fn url(&self) -> &str {
        self.pool.url()
    }

    /// Converts an error. After a connection error the idle connections are suspect, so the pool
    /// drops them.
    fn failed(&self, error: Error) -> L2Error {
        let error = l2_error(error);
        if error.is_outage() {
            self.pool.forget();
        }
        error
    }

    async fn get_some(
        &self,
        keys: &[String],
    ) -> Result<HashMap<Vec<u8>, CasEntry<Token>>, L2Error> {
        let mut connection = self.pool.connection().await?;
        let server = connection.server();
        let values = connection.client()?.meta_get_multi(keys, Some(&["v", "c"])).await;
        let values = values.map_err(|error| self.failed(error))?;
        Ok(values
            .into_iter()
            .filter_map(|mut value| Some((value.key.take()?, cas_entry(value, server)?)))
            .collect())
    }
}

#[async_trait]
impl CasStore for Memcached {
    type Token = Token;

    fn now_us(&self) -> u64 {
        self.pool.now_us()
    }

    async fn get(&self, key: &str) -> Result<Option<CasEntry<Token>>, L2Error> {
        let mut connection = self.pool.connection().await?;
        let server = connection.server();
        let value = connection.client()?.meta_get(name(key), false, None, Some(&["v", "c"])).await;
        match value {
            Ok(value) => Ok(value.and_then(|value| cas_entry(value, server))),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<CasEntry<Token>>>, L2Error> {
        let mut all = Vec::with_capacity(keys.len());
        for keys in keys.chunks(AT_ONCE) {
            let names: Vec<_> = keys.iter().map(|key| name(key)).collect();
            let found = self.get_some(&names).await?;
            all.extend(names.iter().map(|name| found.get(name.as_bytes()).cloned()));
        }
        Ok(all)
    }

    async fn swap(&self, key: &str, seen: Option<Token>, value: Stored) -> Result<bool, L2Error> {
        let mut connection = self.pool.connection().await?;
        if seen.is_some_and(|seen| seen.server != connection.server()) {
            return Ok(false);
        }
        let ttl = match value.ttl_ms.div_ceil(1000).saturating_add(1) {
            secs if secs > MAX_TTL_SECS => "T0".to_owned(),
            secs => format!("T{secs}"),
        };
        // `C`: only if the value is unchanged; `ME`: only if there is no value.
        let guard = seen.map_or_else(|| "ME".to_owned(), |seen| format!("C{}", seen.cas));
        let (flags, bytes) = ([ttl.as_str(), guard.as_str()], &value.bytes[..]);
        match connection.client()?.meta_set(name(key), bytes, false, None, Some(&flags)).await {
            Ok(_) => Ok(true),
            Err(Error::Protocol(Status::Exists | Status::NotStored | Status::NotFound)) => {
                Ok(false)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn delete(&self, key: &str) -> Result<(), L2Error> {
        let mut connection = self.pool.connection().await?;
        match connection.client()?.meta_delete(name(key), false, None, None).await {
            Ok(_) | Err(Error::Protocol(Status::NotFound)) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }
}

fn cas_entry(value: MetaValue, server: Server) -> Option<CasEntry<Token>> {
    let token = Token { cas: value.cas?, server };
    Some(CasEntry { bytes: value.data?.into(), token })
}

/// The memcached name of a key: the key itself, or `#` and its hash. No plain name begins with `#`.
fn name(key: &str) -> String {
    let is_plain = (1..=MAX_KEY).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_graphic())
        && !key.starts_with('#');
    if is_plain { key.to_owned() } else { format!("#{:032x}", KeyHash::of(key).0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_memcached_cannot_take_is_hashed() {
        assert_eq!(name("shop:v1:e:product"), "shop:v1:e:product");
        let long = "k".repeat(251);
        for odd in ["", "a b", "line\n", "ключ", "#00", &long] {
            let name = name(odd);
            assert!(name.starts_with('#') && name.len() == 33, "{odd:?} is {name:?}");
        }
        assert_ne!(name("a b"), name("a  b"));
    }
}
