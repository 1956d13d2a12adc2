use std::io;
use std::time::Duration;

use crinkle_core::l2::{L2Error, L2ErrorKind};
use crinkle_l2_redis::redis::RedisError;

pub(crate) const OK: u8 = 0;
pub(crate) const FOUND: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;
const REFUSED: u8 = 4;
const UNKNOWN: u8 = 5;

/// Why a command failed, and its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: format!("{} See crinkle --help.", sentence(message)) }
    }

    /// The requested item does not exist, or is not valid.
    pub(crate) fn found(message: impl Into<String>) -> Self {
        Self { code: FOUND, message: message.into() }
    }

    pub(crate) fn silent(address: &str, limit: Duration) -> Self {
        let seconds = limit.as_secs();
        Self {
            code: UNREACHABLE,
            message: format!(
                "the server at {address} has not answered within {seconds} s. It hangs, is overloaded, \
                 or a firewall drops the packets; --timeout waits longer."
            ),
        }
    }

    /// The server answers with an error.
    pub(crate) fn refused(address: &str, what: &impl std::fmt::Display) -> Self {
        Self { code: REFUSED, message: format!("the server at {address} refuses: {what}") }
    }

    /// The server at this address failed.
    pub(crate) fn of_server(address: &str, error: &L2Error) -> Self {
        let cause = innermost(error);
        let (code, message) = match error.kind() {
            L2ErrorKind::Disconnected if has_answered(error) => {
                return Self::refused(address, &cause);
            }
            L2ErrorKind::Disconnected | L2ErrorKind::Timeout => (
                UNREACHABLE,
                format!(
                    "cannot reach the server at {address}: {cause}. Is it up, and is --url (or \
                     CRINKLE_REDIS_URL) right?"
                ),
            ),
            L2ErrorKind::Denied => (
                REFUSED,
                format!(
                    "the server at {address} refuses this user: {cause}. Put user and password into \
                     the URL, redis://user:password@host; `crinkle doctor --prefix PREFIX` names the \
                     permissions that are missing."
                ),
            ),
            L2ErrorKind::Foreign => (
                FOUND,
                format!("the key at {address} holds something else, no record of Crinkle: {cause}"),
            ),
            _ => return Self::refused(address, &cause),
        };
        Self { code, message }
    }

    /// A change failed.
    pub(crate) fn of_change(address: &str, error: &crinkle_core::Error) -> Self {
        match error.downcast_ref::<L2Error>() {
            Some(cause) if !cause.is_unknown() || has_answered(cause) => {
                Self::of_server(address, cause)
            }
            Some(_) => Self::unconfirmed(address, &error.to_string()),
            None if error.kind() == crinkle_core::ErrorKind::NotPropagated => {
                Self::unconfirmed(address, &error.to_string())
            }
            None => Self::usage(error.to_string()),
        }
    }

    fn unconfirmed(address: &str, what: &str) -> Self {
        let message = format!(
            "it is not known whether the change happened at {address}: {what}. Run the command again; \
             repeating it is safe."
        );
        Self { code: UNKNOWN, message }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn into_message(self) -> String {
        self.message
    }

    /// Prints the message and returns the exit code.
    pub(crate) fn report(&self) -> u8 {
        if !self.message.is_empty() {
            // A closed standard error is no further failure.
            drop(io::Write::write_fmt(
                &mut io::stderr(),
                format_args!("crinkle: {}\n", self.message),
            ));
        }
        self.code
    }
}

/// Output failed. A closed pipe is no failure: the reader has read enough.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { code: OK, message: String::new() };
        }
        Self { code: UNREACHABLE, message: error.to_string() }
    }
}

fn sentence(text: impl Into<String>) -> String {
    let mut text = text.into();
    if !text.ends_with('.') {
        text.push('.');
    }
    text
}

/// Whether the server answered with this error: the outcome is known then.
fn has_answered(error: &L2Error) -> bool {
    let said = error.cause().downcast_ref::<RedisError>();
    said.is_some_and(|said| said.code().is_some())
}

/// The root cause, without the messages of each layer.
fn innermost(error: &L2Error) -> String {
    error.cause().to_string()
}
