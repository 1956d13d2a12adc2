use crinkle_core::l2::{L2Error, L2ErrorKind};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// What an error of the client means to the cache.
pub(crate) fn l2_error(error: &RedisError) -> L2Error {
    L2Error::new(kind(error), error.clone())
}

fn kind(error: &RedisError) -> L2ErrorKind {
    use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, NoPerm, TryAgain};
    match error.kind() {
        _ if error.is_timeout() => L2ErrorKind::Timeout,
        ErrorKind::Io => L2ErrorKind::Disconnected,
        ErrorKind::AuthenticationFailed | ErrorKind::Server(NoPerm) => L2ErrorKind::Denied,
        // There is a server, but not one that can serve now.
        ErrorKind::Server(BusyLoading | ClusterDown | MasterDown | TryAgain | Moved | Ask) => {
            L2ErrorKind::Disconnected
        }
        _ => said(error),
    }
}

/// Whether the server is a replica, and was none before: older servers wrap what a script met.
pub(crate) fn is_demoted(error: &RedisError) -> bool {
    let code = error.code().unwrap_or_default();
    code == "READONLY" || (code == "ERR" && error.detail().unwrap_or_default().contains("READONLY"))
}

/// How servers before Redis 7.2 say NOPERM to a script.
const FORBIDDEN_IN_SCRIPT: &str = "The user executing the script can't";

/// By the code of the reply, or, where an older server wraps what a script met as `ERR ...`, by its
/// words.
fn said(error: &RedisError) -> L2ErrorKind {
    let (code, detail) = (error.code().unwrap_or_default(), error.detail().unwrap_or_default());
    let says = |word: &str| code == word || (code == "ERR" && detail.contains(word));
    if is_demoted(error) {
        L2ErrorKind::Disconnected
    } else if says("WRONGTYPE") {
        L2ErrorKind::Foreign
    } else if says("OOM") {
        L2ErrorKind::Full
    } else if ["NOPERM", "NOAUTH", "WRONGPASS", FORBIDDEN_IN_SCRIPT].into_iter().any(says) {
        L2ErrorKind::Denied
    } else {
        L2ErrorKind::Other
    }
}

/// Whether the server has answered, if not as it was asked to.
pub(crate) fn is_answer(error: &RedisError) -> bool {
    error.code().is_some_and(|code| !["NOAUTH", "WRONGPASS", "LOADING"].contains(&code))
}
