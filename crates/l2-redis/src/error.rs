use crinkle_core::l2::{L2Error, L2ErrorKind};
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

/// What an error of the client means to the cache.
pub(crate) fn l2_error(error: &RedisError) -> L2Error {
    L2Error::new(kind(error), error.clone())
}

fn kind(error: &RedisError) -> L2ErrorKind {
    use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, NoPerm, TryAgain};
    match error.kind() {
        _ if error.is_timeout() => L2ErrorKind::Timeout,
        ErrorKind::Io => L2ErrorKind::Disconnected,
        ErrorKind::AuthenticationFailed
        | ErrorKind::RESP3NotSupported
        | ErrorKind::Server(NoPerm) => L2ErrorKind::Denied,
        _ if is_unknown_command(error) => L2ErrorKind::Denied,
        // There is a server, but not one that can serve now.
        ErrorKind::Server(BusyLoading | ClusterDown | MasterDown | TryAgain | Moved | Ask) => {
            L2ErrorKind::Disconnected
        }
        _ => said(error),
    }
}

/// Whether the server is a replica, and was none before: older servers wrap what a script met.
pub(crate) fn is_demoted(error: &RedisError) -> bool {
    says(error, "READONLY")
}

/// Whether this is the code of the reply, or within the words of one that has no code of its own.
fn says(error: &RedisError, word: &str) -> bool {
    error.code() == Some(word)
        || (is_without_code(error) && error.detail().unwrap_or_default().contains(word))
}

/// Whether the reply says only that something failed: `ERR`, or what a script met in Redis before 7.0, which
/// begins with the name of the script (`@user_script: 1: ...`).
pub(crate) fn is_without_code(error: &RedisError) -> bool {
    error.code().is_some_and(|code| code == "ERR" || code.starts_with('@'))
}

/// Whether the server has no such command: it was renamed, or something in between does not pass it on. Valkey
/// without its Lua engine knows the commands of scripts and has nothing to run them with.
pub(crate) fn is_unknown_command(error: &RedisError) -> bool {
    let said = error.detail().unwrap_or_default().to_ascii_lowercase();
    let words = [
        "unknown command",
        "unknown subcommand",
        "unknown redis command",
        "could not find scripting engine",
    ];
    error.code() == Some("ERR") && words.iter().any(|words| said.contains(words))
}

/// What the server refused among these replies.
pub(crate) fn server_errors(replies: &[Value]) -> impl Iterator<Item = RedisError> {
    replies.iter().filter_map(|reply| match reply {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    })
}

/// How a server says NOPERM to a script: before Redis 7.2, and since (Valkey as well).
const FORBIDDEN_IN_SCRIPT: [&str; 2] =
    ["The user executing the script can't", "ACL failure in script"];

/// By the code of the reply, or, where the server wraps what a script met, by its words. A server with other
/// words for a missing right is found out by [`Rights::explain`](crate::rights::Rights::explain).
fn said(error: &RedisError) -> L2ErrorKind {
    let says = |word: &&str| says(error, word);
    if is_demoted(error) {
        L2ErrorKind::Disconnected
    } else if says(&"WRONGTYPE") {
        L2ErrorKind::Foreign
    } else if says(&"OOM") {
        L2ErrorKind::Full
    } else if ["NOPERM", "NOAUTH", "WRONGPASS"].iter().chain(&FORBIDDEN_IN_SCRIPT).any(says) {
        L2ErrorKind::Denied
    } else {
        L2ErrorKind::Other
    }
}

/// Whether the server has answered, if not as it was asked to.
pub(crate) fn is_answer(error: &RedisError) -> bool {
    error.code().is_some_and(|code| !["NOAUTH", "WRONGPASS", "LOADING"].contains(&code))
}
