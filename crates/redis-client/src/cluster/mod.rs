//! The servers of a cluster: which server holds which slots, and a connection to each.
//!
//! A command goes to the primary of its key's slot and follows redirections (`MOVED`, `ASK`).
//! Nothing else is repeated: the caller decides about a command that may have run. A redirection,
//! an error or a dropped call triggers a topology refresh in the background; concurrent triggers
//! share one refresh.
//!
//! `slots` maps slots to servers, `agree` decides when servers disagree, `routes` reads commands
//! and redirections, `scripts` has the texts of scripts, `primary` is one server.

mod agree;
pub(crate) mod primary;
mod routes;
mod scripts;
pub(crate) mod slots;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crinkle_core::runtime::Home;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, try_join_all};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{
    Cmd, ConnectionAddr, ConnectionInfo, Pipeline, RedisError, RedisResult, ServerErrorKind, Value,
};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

use self::routes::{is_astray, key, redirected, without_script};
use self::scripts::Scripts;
use self::slots::{Address, Slots, server_name, slot};
use crate::connection::call::{Attachments, Call, Hop};
use crate::connection::endpoint::{Endpoint, Target, any_number};
use crate::connection::{Connection, spawn};
use crate::credentials::AskCredentials;
use crate::error::{failed, is_unknown_script};
use crate::settings::CONNECT_TIMEOUT;

/// Most redirections of one command.
const HOPS: usize = 8;

/// Minimum time between two topology refreshes.
const PAUSE: Duration = Duration::from_millis(100);

/// A cluster, and what this client knows of it.
#[derive(Clone)]
pub(crate) struct Cluster {
    shared: Arc<State>,
}

struct State {
    seeds: Vec<ConnectionInfo>,
    name: Option<String>,
    credentials: Option<AskCredentials>,
    runtime: Home,
    /// Index of the primary that takes commands without a key.
    home: usize,
    scripts: Scripts,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    slots: Option<Arc<Slots>>,
    nodes: HashMap<Address, Arc<Connection>>,
    refreshing: Option<(TopologyRefresh, AbortHandle)>,
    refreshed_at: Option<Instant>,
    /// Round-robin counter, for calls that any server can take.
    rotation: usize,
}

/// One topology refresh, shared by all callers that need it.
pub(crate) type TopologyRefresh = Shared<BoxFuture<'static, RedisResult<Arc<Slots>>>>;

impl Cluster {
    /// A cluster that these servers belong to. All connections use the settings of the first.
    pub(crate) fn new(
        seeds: Vec<ConnectionInfo>,
        name: Option<String>,
        credentials: Option<AskCredentials>,
    ) -> Self {
        let home = any_number();
        let (runtime, known) = (Home::here(), Known { rotation: home, ..Known::default() });
        let (known, scripts) = (Mutex::new(known), Scripts::default());
        let state = State { seeds, name, credentials, runtime, home, scripts, known };
        Self { shared: Arc::new(state) }
    }

    /// Adds the texts of scripts, for servers that do not have them.
    pub(crate) fn add_scripts<'a>(
        &self,
        scripts: impl IntoIterator<Item = (&'a str, &'static str)>,
    ) {
        self.shared.scripts.add(scripts);
    }

    pub(crate) async fn command(&self, cmd: &Cmd) -> RedisResult<Value> {
        let mut watch = Watch { cluster: self, answered: false };
        let mut address = self.owner(cmd).await?;
        let (mut cmd, mut asking) = (Cow::Borrowed(cmd), false);
        for _ in 0..HOPS {
            let answer = self.send(&address, &cmd, asking).await;
            let Err(error) = answer else {
                watch.answered = true;
                return answer;
            };
            match (redirected(&error, &address), without_script(&error, &cmd, &self.shared.scripts))
            {
                (Some(next), _) => {
                    asking = error.kind() == ServerErrorKind::Ask.into();
                    if !asking {
                        drop(self.refresh());
                    }
                    address = next;
                }
                (None, Some(whole)) => cmd = Cow::Owned(whole),
                (None, None) => {
                    watch.answered = !is_astray(&error);
                    return Err(error);
                }
            }
        }
        Err(failed("the servers of the cluster redirect a command in circles"))
    }

    /// Sends a call to the primary of its key.
    pub(crate) async fn call<C: Call>(&self, call: &C) -> RedisResult<C::Reply> {
        let mut watch = Watch { cluster: self, answered: false };
        let mut address = self.owner(redis::cmd("GET").arg(call.key())).await?;
        let mut hop = Hop::default();
        for _ in 0..HOPS {
            let answer = self.node(&address)?.call(call, hop).await;
            let Err(error) = answer else {
                watch.answered = true;
                return answer;
            };
            match redirected(&error, &address) {
                Some(next) => {
                    hop.asking = error.kind() == ServerErrorKind::Ask.into();
                    if !hop.asking {
                        drop(self.refresh());
                    }
                    address = next;
                }
                None if is_unknown_script(&error) && !hop.whole => hop.whole = true,
                None => {
                    watch.answered = !is_astray(&error);
                    return Err(error);
                }
            }
        }
        Err(failed("the servers of the cluster redirect a command in circles"))
    }

    /// Visits each open connection for commands.
    pub(crate) fn visit(&self, visitor: impl Fn(&MultiplexedConnection, &Attachments)) {
        self.shared.known.lock().nodes.values().for_each(|node| node.visit(&visitor));
    }

    /// Sends one pipeline to each server, all concurrently.
    pub(crate) async fn pipeline(
        &self,
        pipe: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let mut watch = Watch { cluster: self, answered: false };
        let cmds: Vec<_> = pipe.cmd_iter().collect();
        let mut parts: HashMap<Address, Vec<usize>> = HashMap::new();
        for (place, cmd) in cmds.iter().enumerate() {
            parts.entry(self.owner(cmd).await?).or_default().push(place);
        }
        if pipe.is_transaction() {
            let node = parts.into_keys().next().ok_or_else(|| failed("an empty transaction"))?;
            return self.node(&node)?.pipeline(pipe, offset, count).await;
        }
        let parts = parts.iter().map(|(address, places)| self.part(address, pipe, &cmds, places));
        let mut values = vec![Value::Nil; cmds.len()];
        for (place, value) in try_join_all(parts).await?.into_iter().flatten() {
            values[place] = value;
        }
        watch.answered = true;
        Ok(values)
    }

    /// A server for a subscription, a different one each time.
    pub(crate) async fn any(&self) -> RedisResult<Arc<Connection>> {
        let primaries = self.slots().await?.primaries();
        self.node(&primaries[self.rotation() % primaries.len()])
    }

    /// Primary of a key, if the slots are known.
    pub(crate) fn primary_of(&self, key: &[u8]) -> Option<Address> {
        self.shared.known.lock().slots.as_ref()?.owner(slot(key)).cloned()
    }

    /// The slots, if they are known.
    pub(crate) fn known_slots(&self) -> Option<Arc<Slots>> {
        self.shared.known.lock().slots.clone()
    }

    /// The primaries, if the slots are known.
    pub(crate) fn known_primaries(&self) -> Vec<Address> {
        self.known_slots().map_or_else(Vec::new, |slots| slots.primaries())
    }

    /// Opens a connection to a replica of a primary, a different one each time.
    pub(crate) async fn replica_of(
        &self,
        primary: &Address,
    ) -> RedisResult<(Arc<str>, MultiplexedConnection)> {
        let replicas = self.slots().await?.replicas(primary);
        let at = replicas.get(self.rotation() % replicas.len().max(1));
        let at = at.ok_or_else(|| failed("the primary has no replica"))?;
        let mut replica = self.endpoint(at)?.connection().await?;
        let () = redis::cmd("READONLY").query_async(&mut replica).await?;
        Ok((server_name(at), replica))
    }

    /// Every server, whether it is a primary, and an endpoint for it alone.
    pub(crate) async fn members(&self) -> RedisResult<Vec<(Address, bool, Endpoint)>> {
        let slots = self.slots().await?;
        let primaries = slots.primaries();
        let member = |at: Address| {
            let (is_primary, endpoint) = (primaries.contains(&at), self.endpoint(&at)?);
            Ok((at, is_primary, endpoint))
        };
        slots.servers().into_iter().map(member).collect()
    }

    /// Loads the topology in advance; ignores a failure.
    pub(crate) async fn warm(&self) {
        drop(self.slots().await);
    }

    /// User of the connections; `None` for the default user.
    pub(crate) fn user(&self) -> Option<String> {
        let node = self.shared.known.lock().nodes.values().next().map(Arc::clone);
        node.and_then(|node| node.user())
    }

    /// Starts a topology refresh, or joins the one that runs.
    pub(crate) fn refresh(&self) -> TopologyRefresh {
        let mut known = self.shared.known.lock();
        // A finished task that is still here was stopped with its runtime.
        if let Some((refresh, _)) =
            known.refreshing.as_ref().filter(|(_, task)| !task.is_finished())
        {
            return refresh.clone();
        }
        let running = spawn(&self.shared.runtime, self.clone().find_slots(known.refreshed_at));
        let task = running.abort_handle();
        let refresh = async { running.await.map_err(|_| failed("the runtime is shutting down"))? };
        let refresh = refresh.boxed().shared();
        known.refreshing = Some((refresh.clone(), task));
        refresh
    }

    /// Runs one server's part of a pipeline. Commands that the server redirects, or whose script it
    /// does not know, run one by one afterwards, in order.
    async fn part(
        &self,
        address: &Address,
        pipe: &Pipeline,
        cmds: &[&Cmd],
        places: &[usize],
    ) -> RedisResult<Vec<(usize, Value)>> {
        let node = self.node(address)?;
        let values = if places.len() == cmds.len() {
            node.pipeline(pipe, 0, cmds.len()).await?
        } else {
            let mut part = redis::pipe();
            for place in places {
                part.add_command(cmds[*place].clone());
            }
            node.pipeline(&part, 0, places.len()).await?
        };
        let mut all = Vec::with_capacity(places.len());
        for (place, value) in places.iter().zip(values) {
            let again = value.clone().extract_error().err().is_some_and(|error| {
                redirected(&error, address).is_some()
                    || without_script(&error, cmds[*place], &self.shared.scripts).is_some()
            });
            let value = if again { self.command(cmds[*place]).await? } else { value };
            all.push((*place, value));
        }
        Ok(all)
    }

    pub(crate) async fn send(
        &self,
        address: &Address,
        cmd: &Cmd,
        asking: bool,
    ) -> RedisResult<Value> {
        let node = self.node(address)?;
        if !asking {
            return node.command(cmd).await?.extract_error();
        }
        // One pipeline, so that no other command comes between the two.
        let mut pipe = redis::pipe();
        pipe.cmd("ASKING").add_command(cmd.clone());
        let mut values = node.pipeline(&pipe, 0, 2).await?;
        values.pop().unwrap_or(Value::Nil).extract_error()
    }

    async fn owner(&self, cmd: &Cmd) -> RedisResult<Address> {
        let slots = self.slots().await?;
        let Some(key) = key(cmd) else {
            let primaries = slots.primaries();
            // Always the same primary, so that published messages stay in order.
            return Ok(primaries[self.shared.home % primaries.len()].clone());
        };
        slots.owner(slot(key)).cloned().ok_or_else(|| {
            drop(self.refresh());
            let nobody = "no server holds the slot of the key";
            RedisError::from((ServerErrorKind::ClusterDown.into(), nobody))
        })
    }

    pub(crate) async fn slots(&self) -> RedisResult<Arc<Slots>> {
        if let Some(slots) = self.known_slots() { Ok(slots) } else { self.refresh().await }
    }

    fn rotation(&self) -> usize {
        let mut known = self.shared.known.lock();
        known.rotation = known.rotation.wrapping_add(1);
        known.rotation
    }

    /// The connection to a server; the first command opens it.
    pub(crate) fn node(&self, address: &Address) -> RedisResult<Arc<Connection>> {
        let mut known = self.shared.known.lock();
        if let Some(node) = known.nodes.get(address) {
            return Ok(Arc::clone(node));
        }
        let node = Arc::new(Connection::new(self.endpoint(address)?, self.shared.runtime.clone()));
        known.nodes.insert(address.clone(), Arc::clone(&node));
        Ok(node)
    }

    fn endpoint(&self, address: &Address) -> RedisResult<Endpoint> {
        let target = Target::Server(redis::Client::open(self.info(address))?);
        let (name, credentials) = (self.shared.name.clone(), self.shared.credentials.clone());
        Ok(Endpoint { name, credentials, ..Endpoint::plain(target) })
    }

    fn info(&self, (host, port): &Address) -> ConnectionInfo {
        let like = self.shared.seeds[0].clone();
        let (host, port) = (host.to_string(), *port);
        let address = match like.addr().clone() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure, tls_params }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        like.set_addr(address)
    }

    /// Asks one server after the other: first the known servers, each time from a different one,
    /// then the seeds.
    async fn find_slots(self, refreshed_at: Option<Instant>) -> RedisResult<Arc<Slots>> {
        if let Some(refreshed_at) = refreshed_at {
            sleep_until(refreshed_at + PAUSE).await;
        }
        let rotation = self.rotation();
        let mut servers = self.known_slots().map_or_else(Vec::new, |slots| slots.servers());
        if !servers.is_empty() {
            let rotation = rotation % servers.len();
            servers.rotate_left(rotation);
        }
        let seeds = self.shared.seeds.iter().filter_map(|seed| match seed.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some((Arc::from(&**host), *port))
            }
            _ => None,
        });
        servers.extend(seeds);
        let mut found = Err(failed("no server of the cluster has answered in time"));
        for server in &servers {
            match timeout(CONNECT_TIMEOUT, self.ask(server)).await {
                Ok(Ok(says)) => {
                    found = Ok(self.believed(server, says, &servers).await);
                    break;
                }
                Ok(Err(error)) => found = Err(error),
                Err(_) => {}
            }
        }
        self.adopt(found)
    }

    /// The slots as one server reports them.
    pub(crate) async fn ask(&self, server: &Address) -> RedisResult<Arc<Slots>> {
        let mut cmd = redis::cmd("CLUSTER");
        cmd.arg("SLOTS");
        let reply = self.send(server, &cmd, false).await?;
        Slots::read(server, reply)
            .map(Arc::new)
            .ok_or_else(|| failed("a server of the cluster reports no slots"))
    }

    fn adopt(&self, found: RedisResult<Arc<Slots>>) -> RedisResult<Arc<Slots>> {
        let mut known = self.shared.known.lock();
        if let Ok(slots) = &found {
            let servers = slots.servers();
            known.nodes.retain(|address, _| servers.contains(address));
            known.slots = Some(Arc::clone(slots));
        }
        (known.refreshing, known.refreshed_at) = (None, Some(Instant::now()));
        found
    }
}

/// Refreshes the topology if a command had no answer: its server may be frozen and already
/// replaced.
pub(crate) struct Watch<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) answered: bool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.answered {
            drop(self.cluster.refresh());
        }
    }
}
