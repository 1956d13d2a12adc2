//! Routes commands in a cluster: the key of a command, and the servers' redirections.

use std::sync::Arc;

use redis::{Arg, Cmd, ErrorKind, RedisError, ServerErrorKind};

use super::scripts::Scripts;
use super::slots::Address;
use crate::error::is_unknown_script;

/// The key that decides which server gets a command; `None` if any primary can take it.
pub(crate) fn key(cmd: &Cmd) -> Option<&[u8]> {
    let arg = |place| match cmd.args_iter().nth(place)? {
        Arg::Simple(bytes) => Some(bytes),
        _ => None,
    };
    match arg(0)? {
        b"EVALSHA" | b"EVAL" | b"evalsha" => arg(3),
        b"PUBLISH" | b"SCRIPT" | b"script" => None,
        _ => arg(1),
    }
}

/// The server to which `from` redirects a command.
pub(crate) fn redirected(error: &RedisError, from: &Address) -> Option<Address> {
    let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
    let host = if host.is_empty() { Arc::clone(&from.0) } else { Arc::from(host) };
    Some((host, port.parse().ok()?))
}

/// The same command with the full text of its script. Each server caches scripts for itself, and
/// the importing server of a slot that is being migrated can get one only in this way.
pub(crate) fn without_script(error: &RedisError, cmd: &Cmd, scripts: &Scripts) -> Option<Cmd> {
    if !is_unknown_script(error) {
        return None;
    }
    let mut args = cmd.args_iter().skip(1);
    let Arg::Simple(hash) = args.next()? else { return None };
    let mut whole = redis::cmd("EVAL");
    whole.arg(scripts.text(hash)?);
    for arg in args {
        if let Arg::Simple(bytes) = arg {
            whole.arg(bytes);
        }
    }
    Some(whole)
}

/// Whether another server may hold the slot by now.
pub(crate) fn is_astray(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly, TryAgain};
    match error.kind() {
        ErrorKind::Server(kind) => {
            matches!(kind, BusyLoading | ClusterDown | MasterDown | ReadOnly | TryAgain)
        }
        ErrorKind::Extension => false,
        _ => true,
    }
}
