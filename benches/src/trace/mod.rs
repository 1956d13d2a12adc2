//! Replays a trace of real accesses on three nodes over Redis while entries are invalidated.
//! Without a file, the requests are draws by Zipf's law.

mod input;
mod replay;
mod source;

pub(crate) use input::Input;
pub(crate) use replay::{NODES, Told, WRITES, bare_moka, replay};
#[cfg(feature = "peers")]
pub(crate) use source::{Cluster, Source};
