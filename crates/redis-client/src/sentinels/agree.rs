//! Finds the primary that the sentinels name, also when they disagree.
//!
//! Each failover has its own number, the config epoch. An isolated sentinel still names the primary
//! of an older epoch. That server still claims to be a primary if no sentinel has reconfigured it.
//! So all sentinels are asked, and those with the highest epoch count. If these name several
//! servers, the most frequent is tried first. The first server that confirms that it is a primary
//! is used.
//!
//! The address comes from `SENTINEL GET-MASTER-ADDR-BY-NAME`: as soon as a failover has its epoch,
//! that is the promoted server's. `SENTINEL MASTERS` reports the old address until all replicas are
//! reconfigured.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, Role,
};
use tokio::time::{Instant, timeout, timeout_at};

use crate::sentinels::Sentinels;
use crate::settings::{CONNECT_TIMEOUT, tcp_settings};

/// Limit for the other sentinels once one has answered; those that miss it have no vote.
const ANSWER: Duration = Duration::from_millis(500);

/// How many servers are checked concurrently.
const AT_ONCE: usize = 3;

/// Host and port of a server.
type Address = (String, u16);

/// One sentinel's answer about the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Vote {
    epoch: u64,
    /// `None` if the sentinel considers that server down.
    address: Option<Address>,
}

impl Sentinels {
    /// The primary that the sentinels agree on and that confirms its role, for this user.
    pub(crate) async fn agreed(&self, user: &RedisConnectionInfo) -> RedisResult<Client> {
        let checks = self.candidates().await?.into_iter().map(|at| {
            let client = self.client_to(self.server(at), user.clone());
            async move { timeout(CONNECT_TIMEOUT, checked(client?)).await.map_err(|_| slow())? }
        });
        let mut checks = stream::iter(checks).buffered(AT_ONCE);
        let mut failed = none("the sentinels do not reach the primary");
        while let Some(check) = checks.next().await {
            match check {
                Ok(primary) => return Ok(primary),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Asks every sentinel; returns the servers to try, in order.
    async fn candidates(&self) -> RedisResult<Vec<Address>> {
        let asked = self.addresses.iter().enumerate();
        let mut answers: FuturesUnordered<_> =
            asked.map(async |(place, at)| (place, self.vote(at).await)).collect();
        let mut votes = vec![None; self.addresses.len()];
        let mut failed = none("no sentinel knows a primary of this name");
        let mut deadline = None;
        loop {
            let answer = match deadline {
                // The caller has a timeout.
                None => answers.next().await,
                Some(deadline) => timeout_at(deadline, answers.next()).await.unwrap_or(None),
            };
            match answer {
                None => break,
                Some((_, Err(error))) => failed = error,
                Some((place, Ok(vote))) => {
                    deadline = deadline.or_else(|| vote.as_ref().map(|_| Instant::now() + ANSWER));
                    votes[place] = vote;
                }
            }
        }
        let votes: Vec<_> = votes.into_iter().flatten().collect();
        if votes.is_empty() { Err(failed) } else { Ok(candidates(&votes)) }
    }

    async fn vote(&self, at: &ConnectionAddr) -> RedisResult<Option<Vote>> {
        let idle = self.asked.lock().remove(&at.to_string());
        // An idle connection may be dead: its runtime has shut down, or the sentinel was restarted.
        if let Some(idle) = idle
            && let Ok(vote) = self.vote_on(idle, at).await
        {
            return Ok(vote);
        }
        let client = self.client_to(at.clone(), self.asked_as.clone())?;
        self.vote_on(client.get_multiplexed_async_connection().await?, at).await
    }

    /// Asks one sentinel, and keeps the connection if it answers.
    async fn vote_on(
        &self,
        mut sentinel: MultiplexedConnection,
        at: &ConnectionAddr,
    ) -> RedisResult<Option<Vote>> {
        let mut pipe = redis::pipe();
        pipe.cmd("SENTINEL").arg("MASTERS");
        pipe.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.primary);
        let (primaries, address): (Vec<HashMap<String, String>>, Option<Address>) =
            pipe.query_async(&mut sentinel).await?;
        self.asked.lock().insert(at.to_string(), sentinel);
        Ok(address.and_then(|at| primaries.iter().find_map(|says| vote(says, &self.primary, &at))))
    }

    /// Connection address of a server that a sentinel names.
    fn server(&self, (host, port): Address) -> ConnectionAddr {
        if self.addresses.iter().any(|at| matches!(at, ConnectionAddr::TcpTls { .. })) {
            return ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
        }
        ConnectionAddr::Tcp(host, port)
    }

    fn client_to(&self, at: ConnectionAddr, user: RedisConnectionInfo) -> RedisResult<Client> {
        #[cfg(feature = "tls")]
        let is_tls = matches!(at, ConnectionAddr::TcpTls { .. });
        let info = at.into_connection_info()?;
        let info = info.set_redis_settings(user).set_tcp_settings(tcp_settings());
        #[cfg(feature = "tls")]
        if let Some(certificates) = self.certificates.as_ref().filter(|_| is_tls) {
            return Client::build_with_tls(info, certificates.clone());
        }
        Client::open(info)
    }
}

/// Converts a sentinel's answers to a vote: `says` from `MASTERS`, `at` from
/// `GET-MASTER-ADDR-BY-NAME`.
fn vote(says: &HashMap<String, String>, name: &str, at: &Address) -> Option<Vote> {
    (says.get("name")? == name).then_some(())?;
    let epoch = says.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    // During a failover the flags are still those of the old primary.
    let is_of_flags = says.get("ip") == Some(&at.0) && says.get("port") == Some(&at.1.to_string());
    let is_down = says
        .get("flags")
        .is_some_and(|flags| flags.split(',').any(|flag| matches!(flag, "s_down" | "o_down")));
    let address = (!(is_of_flags && is_down)).then(|| at.clone());
    Some(Vote { epoch, address })
}

/// The servers that the sentinels of the highest epoch name, the most frequent first, ties in order
/// of the sentinels. A server of an older epoch was demoted and is never tried.
fn candidates(votes: &[Vote]) -> Vec<Address> {
    let newest = votes.iter().map(|vote| vote.epoch).max();
    let newest = votes.iter().filter(|vote| Some(vote.epoch) == newest);
    let named: Vec<_> = newest.filter_map(|vote| vote.address.as_ref()).collect();
    let mut candidates = Vec::new();
    for address in &named {
        if !candidates.contains(address) {
            candidates.push(*address);
        }
    }
    candidates.sort_by_key(|address| Reverse(named.iter().filter(|at| *at == address).count()));
    candidates.into_iter().cloned().collect()
}

/// Returns this server if it confirms that it is a primary.
async fn checked(client: Client) -> RedisResult<Client> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT));
    let mut server = client.get_multiplexed_async_connection_with_config(&config).await?;
    match redis::cmd("ROLE").query_async(&mut server).await? {
        Role::Primary { .. } => Ok(client),
        _ => Err(none("the server that the sentinels name reports that it is no primary")),
    }
}

fn none(why: &'static str) -> RedisError {
    (ErrorKind::MasterNameNotFoundBySentinel, why).into()
}

fn slow() -> RedisError {
    (ErrorKind::Io, "the primary that the sentinels name has not answered in time").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vote of a sentinel that answers this to `MASTERS`, and `named` to
    /// `GET-MASTER-ADDR-BY-NAME`.
    fn says(epoch: u64, of: (&str, &str), named: &str) -> Vote {
        let (host, flags) = of;
        let pairs = [
            ("name", "mymaster"),
            ("ip", host),
            ("port", "6379"),
            ("flags", flags),
            ("config-epoch", &epoch.to_string()),
        ];
        let says = pairs.into_iter().map(|(of, is)| (of.to_owned(), is.to_owned())).collect();
        let named = (named.to_owned(), 6379);
        assert_eq!(vote(&says, "another", &named), None);
        vote(&says, "mymaster", &named).expect("it knows the primary")
    }

    fn up(epoch: u64, host: &str) -> Vote {
        says(epoch, (host, "master"), host)
    }

    fn down(epoch: u64, host: &str) -> Vote {
        says(epoch, (host, "master,s_down"), host)
    }

    fn tried(votes: &[Vote]) -> Vec<String> {
        candidates(votes).into_iter().map(|(host, _)| host).collect()
    }

    #[test]
    fn the_last_failover_is_believed_though_most_sentinels_have_not_heard_of_it() {
        assert_eq!(tried(&[up(3, "old"), up(3, "old"), up(4, "new")]), ["new"]);
    }

    /// The sentinel that leads the failover has the new epoch, while its `MASTERS` still shows the
    /// old address and the old flags.
    #[test]
    fn while_replicas_are_reconfigured_the_promoted_server_is_named() {
        for flags in ["master,failover_in_progress", "master,s_down,o_down,failover_in_progress"] {
            let leads = says(4, ("old", flags), "new");
            assert_eq!(tried(&[leads.clone(), up(3, "old"), up(3, "old")]), ["new"], "{flags}");
            assert_eq!(tried(&[leads, up(4, "new"), up(3, "old")]), ["new"], "{flags}");
        }
    }

    #[test]
    fn of_one_epoch_what_most_sentinels_say_is_tried_first_and_then_the_others() {
        assert_eq!(tried(&[up(3, "one"), up(3, "two"), up(3, "two")]), ["two", "one"]);
        assert_eq!(tried(&[up(3, "one"), up(3, "two")]), ["one", "two"]);
        assert!(tried(&[]).is_empty());
    }

    #[test]
    fn a_server_that_a_sentinel_does_not_reach_is_not_named_by_it() {
        assert_eq!(tried(&[down(3, "one"), down(3, "one"), up(3, "two")]), ["two"]);
        assert_eq!(tried(&[down(3, "one"), up(3, "one")]), ["one"]);
        let flags = "master,o_down";
        assert!(tried(&[says(3, ("one", flags), "one")]).is_empty());
    }

    /// The same for the primary from before the last failover, which may not know that it was
    /// demoted.
    #[test]
    fn no_server_of_an_older_epoch_takes_the_place_of_one_that_is_down() {
        assert!(tried(&[down(4, "new"), up(3, "old"), up(3, "old")]).is_empty());
    }
}
