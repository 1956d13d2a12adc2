use std::fmt;
use std::sync::Arc;

use crinkle_core::BoxError;
use futures_util::future::BoxFuture;
use redis::RedisConnectionInfo;

/// User name and password on the server.
#[derive(Clone)]
pub struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    /// Credentials of a user. Redis calls the user that has no name `default`.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into() }
    }

    pub(crate) fn into_settings(self, settings: RedisConnectionInfo) -> RedisConnectionInfo {
        settings.set_username(self.user).set_password(self.password)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The application's callback for credentials.
pub(crate) type AskCredentials =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Credentials, BoxError>> + Send + Sync>;
