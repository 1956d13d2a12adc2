//! The single servers behind a client, and calls with state of a connection: what a store needs.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Value};

use super::{RedisClient, Server};
use crate::acl::Trial;
use crate::cluster::primary::Primary;
use crate::cluster::slots::Address;
use crate::connection::call::{Attachments, Call, Hop};
use crate::error::is_unknown_script;

/// One server of a cluster, with a client for it alone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Member {
    /// Its host and port.
    pub address: Address,
    /// False for a replica.
    pub is_primary: bool,
    /// A client for this server.
    pub client: RedisClient,
}

impl RedisClient {
    /// Client for further connections to the server; in a cluster to one server, a different one
    /// each time.
    ///
    /// # Errors
    ///
    /// If there are no credentials, or no server to connect to.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn server(&self) -> RedisResult<redis::Client> {
        match &self.shared.server {
            Server::One(connection) => connection.client().await,
            Server::Many(cluster) => cluster.any().await?.client().await,
        }
    }

    /// Placeholder address of the only primary, where there is no cluster.
    #[must_use]
    pub fn only_primary() -> Address {
        (Arc::from(""), 0)
    }

    /// Primary of a key, if it is known.
    #[must_use]
    pub fn primary_of(&self, key: &str) -> Option<Address> {
        match &self.shared.server {
            Server::One(_) => Some(Self::only_primary()),
            Server::Many(cluster) => cluster.primary_of(key.as_bytes()),
        }
    }

    /// Known primaries of a cluster; empty if this is no cluster.
    #[must_use]
    pub fn known_primaries(&self) -> Vec<Address> {
        match &self.shared.server {
            Server::One(_) => Vec::new(),
            Server::Many(cluster) => cluster.known_primaries(),
        }
    }

    /// All primaries; [`only_primary`](Self::only_primary) where there is no cluster.
    ///
    /// # Errors
    ///
    /// As [`primaries`](Self::primaries).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn primary_addresses(&self) -> RedisResult<Vec<Address>> {
        let Server::Many(_) = &self.shared.server else { return Ok(vec![Self::only_primary()]) };
        Ok(self.primaries().await?.into_iter().map(Primary::into_address).collect())
    }

    /// Every server of a cluster; empty if this is no cluster.
    ///
    /// # Errors
    ///
    /// If no server of the cluster answers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn members(&self) -> RedisResult<Vec<Member>> {
        let Server::Many(cluster) = &self.shared.server else { return Ok(Vec::new()) };
        let member = |(address, is_primary, endpoint)| {
            let client = Self::over(endpoint, self.bus(), 0);
            Member { address, is_primary, client }
        };
        Ok(cluster.members().await?.into_iter().map(member).collect())
    }

    /// Tries a right on one primary.
    ///
    /// # Errors
    ///
    /// If the server refuses the command or is unreachable.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future discards the answer.
    pub async fn try_right(&self, primary: &Address, trial: &Trial) -> RedisResult<Value> {
        let mut cmd = redis::cmd(&trial.words[0]);
        cmd.arg(&trial.words[1..]);
        if trial.right != "asking" {
            return self.command_at(primary, &cmd).await;
        }
        // `ASKING` applies to the next command, which must be our own.
        let mut pipe = redis::pipe();
        pipe.add_command(cmd).cmd("TIME");
        let answers = self.pipeline_at(primary, &pipe, 2).await?;
        answers.into_iter().next().unwrap_or(Value::Nil).extract_error()
    }

    /// Sends a command to one primary. Does not follow redirections.
    ///
    /// # Errors
    ///
    /// If the server refuses the command or is unreachable.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future discards the answer; the command may run.
    pub async fn command_at(&self, primary: &Address, cmd: &Cmd) -> RedisResult<Value> {
        match &self.shared.server {
            Server::One(connection) => connection.command(cmd).await?.extract_error(),
            Server::Many(cluster) => cluster.send(primary, cmd, false).await,
        }
    }

    /// Sends `count` commands to one primary, without other commands in between.
    ///
    /// # Errors
    ///
    /// If the server is unreachable; the error of a single command is its value.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future discards the answers; the commands may run.
    pub async fn pipeline_at(
        &self,
        primary: &Address,
        pipe: &Pipeline,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        match &self.shared.server {
            Server::One(connection) => connection.pipeline(pipe, 0, count).await,
            Server::Many(cluster) => cluster.node(primary)?.pipeline(pipe, 0, count).await,
        }
    }

    /// Sends a call to the primary of its key. If the server does not know the script, the client
    /// gives it the script and sends the call again: that call did not run.
    ///
    /// # Errors
    ///
    /// If the server refuses the call or is unreachable.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future discards the answer; the call may run.
    pub async fn call<C: Call>(&self, call: &C) -> RedisResult<C::Reply> {
        let connection = match &self.shared.server {
            Server::One(connection) => connection,
            Server::Many(cluster) => return cluster.call(call).await,
        };
        match connection.call(call, Hop::default()).await {
            Err(error) if is_unknown_script(&error) => {
                call.script().prepare_invoke().load_async(&mut self.clone()).await?;
                connection.call(call, Hop::default()).await
            }
            answer => answer,
        }
    }

    /// Visits each open connection for commands.
    pub fn visit_connections(&self, visitor: impl Fn(&MultiplexedConnection, &Attachments)) {
        match &self.shared.server {
            Server::One(connection) => connection.visit(visitor),
            Server::Many(cluster) => cluster.visit(visitor),
        }
    }

    /// Adds scripts that commands call by hash: hash and text. The servers of a cluster cache
    /// scripts each for itself; one that does not know a script then gets its text.
    pub fn add_scripts<'a>(&self, scripts: impl IntoIterator<Item = (&'a str, &'static str)>) {
        if let Server::Many(cluster) = &self.shared.server {
            cluster.add_scripts(scripts);
        }
    }

    /// Opens a connection to a replica of one primary; returns it with the replica's name.
    ///
    /// # Errors
    ///
    /// If the primary has no replica, or the replica is unreachable.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the attempt.
    pub async fn connect_to_replica(
        &self,
        primary: &Address,
    ) -> RedisResult<(Arc<str>, MultiplexedConnection)> {
        match &self.shared.server {
            Server::One(connection) => connection.replica().await,
            Server::Many(cluster) => cluster.replica_of(primary).await,
        }
    }
}
