//! Which history of writes the servers are in.

use crinkle_core::l2::L2Error;
use redis::{ErrorKind, ServerErrorKind};

use crate::client::RedisClient;
use crate::error::l2_error;

/// The replication ids of all primaries, in whatever order they were asked; `None` if this user may not
/// run `INFO`.
pub(crate) async fn of(client: &RedisClient) -> Result<Option<u64>, L2Error> {
    let mut info = redis::cmd("INFO");
    match client.ask_primaries::<String>(info.arg("replication")).await {
        Ok(infos) => Ok(infos
            .iter()
            .try_fold(0_u64, |all, info| Some(all.wrapping_add(replication_id(info)?)))),
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => Ok(None),
        Err(error) => Err(l2_error(&error)),
    }
}

fn replication_id(info: &str) -> Option<u64> {
    let id = info.lines().find_map(|line| line.strip_prefix("master_replid:"))?;
    u64::from_str_radix(id.get(..16)?, 16).ok()
}
