//! Reads a server's replication id, which identifies its history of writes.

use crinkle_core::l2::L2Error;
use crinkle_redis_client::error::l2_error;
use crinkle_redis_client::{Primary, RedisClient};
use redis::{ErrorKind, RedisResult, ServerErrorKind};

/// Reads the replication id of the server, in a cluster of the primary with this name. `None` if
/// the user may not run `INFO`, or if there is no such primary.
pub(crate) async fn of(client: &RedisClient, name: Option<&str>) -> Result<Option<u64>, L2Error> {
    match info(client, name).await {
        Ok(info) => Ok(info.and_then(|info| replication_id(&info))),
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => Ok(None),
        Err(error) => Err(l2_error(&error)),
    }
}

async fn info(client: &RedisClient, name: Option<&str>) -> RedisResult<Option<String>> {
    let mut info = redis::cmd("INFO");
    info.arg("replication");
    if !client.is_cluster() {
        return Ok(Some(info.query_async(&mut client.clone()).await?));
    }
    let primaries = client.primaries().await?;
    let named = |primary: &&Primary| name == Some(&*primary.name());
    let Some(primary) = primaries.iter().find(named) else { return Ok(None) };
    Ok(Some(redis::from_redis_value(primary.command(&info).await?)?))
}

fn replication_id(info: &str) -> Option<u64> {
    let id = info.lines().find_map(|line| line.strip_prefix("master_replid:"))?;
    u64::from_str_radix(id.get(..16)?, 16).ok()
}
