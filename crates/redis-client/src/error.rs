//! What an error of the client means.

use crinkle_core::l2::{L2Error, L2ErrorKind};
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

/// Converts an error of the client into the cache's error.
#[must_use]
pub fn l2_error(error: &RedisError) -> L2Error {
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
        // The server answers, but cannot serve now.
        ErrorKind::Server(BusyLoading | ClusterDown | MasterDown | TryAgain | Moved | Ask) => {
            L2ErrorKind::Disconnected
        }
        _ => kind_by_text(error),
    }
}

/// Whether the server has become a replica. Older servers wrap a script's error, so the code may be
/// inside the text.
#[must_use]
pub fn is_demoted(error: &RedisError) -> bool {
    says(error, "READONLY")
}

/// Whether `word` is the reply's code, or occurs in the text of a reply without a code of its own.
fn says(error: &RedisError, word: &str) -> bool {
    error.code() == Some(word)
        || (is_without_code(error) && error.detail().unwrap_or_default().contains(word))
}

/// Whether the reply has no specific code: `ERR`, or an error inside a script before Redis 7.0,
/// which begins with the script's name (`@user_script: 1: ...`).
#[must_use]
pub fn is_without_code(error: &RedisError) -> bool {
    error.code().is_some_and(|code| code == "ERR" || code.starts_with('@'))
}

/// Whether the server lacks the command: its configuration renames it, or a proxy blocks it. A
/// Valkey without its Lua engine accepts script commands and cannot run a script.
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

/// The errors among these replies.
pub(crate) fn server_errors(replies: &[Value]) -> impl Iterator<Item = RedisError> {
    replies.iter().filter_map(|reply| match reply {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    })
}

/// Text of NOPERM inside a script: before Redis 7.2, and since then (also Valkey).
const FORBIDDEN_IN_SCRIPT: [&str; 2] =
    ["The user executing the script can't", "ACL failure in script"];

/// Finds the kind by the reply's code, or by its text where the server wraps a script's error. For
/// servers with another text for a missing right, a store tries all its rights.
fn kind_by_text(error: &RedisError) -> L2ErrorKind {
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

/// Whether this error is the server's answer to the command itself.
#[must_use]
pub fn is_answer(error: &RedisError) -> bool {
    error.code().is_some_and(|code| !["NOAUTH", "WRONGPASS", "LOADING"].contains(&code))
}

/// An error of the connection, with this reason.
pub(crate) fn failed(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Io, why))
}

/// Whether the server lacks the script.
pub(crate) fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ServerErrorKind::NoScript.into()
}
