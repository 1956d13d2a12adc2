//! Limits and settings that all connections share.

use std::time::Duration;

use crinkle_core::l2::BusId;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};

/// How long one attempt to connect may take, handshake included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The kernel drops a peer that acknowledges no bytes for this long.
/// [`Silence`](crate::connection::silence::Silence) detects a peer that acknowledges bytes and
/// answers no command.
const SILENCE: Duration = Duration::from_secs(10);

/// Identity of a server's message bus. Each database has its own, since its channels contain its
/// number.
pub(crate) fn bus_id(address: &str, database: i64) -> BusId {
    match database {
        0 => BusId::new(format!("redis:{address}")),
        number => BusId::new(format!("redis:{address}/{number}")),
    }
}

pub(crate) fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(SILENCE / 2).with_interval(SILENCE / 5);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let settings = settings.set_user_timeout(SILENCE);
    settings
}
