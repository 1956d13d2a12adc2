use async_memcached::{Error, ErrorKind, Status};
use crinkle_core::l2::{L2Error, L2ErrorKind};

/// Converts an error of the client into the cache's error.
pub(crate) fn l2_error(error: Error) -> L2Error {
    L2Error::new(kind(&error), error)
}

fn kind(error: &Error) -> L2ErrorKind {
    match error {
        Error::Connect(_) | Error::ConnectionClosed | Error::Io(_) => L2ErrorKind::Disconnected,
        Error::Protocol(Status::Error(ErrorKind::Server(said)))
            if said.contains("out of memory") || said.contains("too large") =>
        {
            L2ErrorKind::Full
        }
        // A server before 1.6.
        Error::Protocol(Status::Error(ErrorKind::NonexistentCommand)) => L2ErrorKind::Denied,
        _ => L2ErrorKind::Other,
    }
}
