use std::borrow::Cow;

/// What a call takes as its key: a string, borrowed or owned.
///
/// A borrowed key is not copied for a hit. An owned key, such as that of `format!`, moves into the
/// request.
///
/// ```
/// # use crinkle_core::Cache;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), crinkle_core::Error> {
/// # let cache = Cache::builder("shop").build()?;
/// let (id, key) = (42, "price:42".to_owned());
/// cache.set(format!("price:{id}"), 1_999_u32).await?;
/// assert!(cache.get::<u32>("price:42").await?.is_some());
/// assert!(cache.get::<u32>(&key).await?.is_some());
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a key",
    label = "not a string",
    note = "a key is `\"user:7\"`, `format!(\"user:{{id}}\")`, or a reference to what has `AsRef<str>`"
)]
pub trait IntoKey<'a> {
    /// Converts to the key, without a copy.
    fn into_key(self) -> Cow<'a, str>;
}

impl<'a, K: AsRef<str> + ?Sized> IntoKey<'a> for &'a K {
    #[inline]
    fn into_key(self) -> Cow<'a, str> {
        Cow::Borrowed(self.as_ref())
    }
}

impl<'a> IntoKey<'a> for String {
    fn into_key(self) -> Cow<'a, str> {
        Cow::Owned(self)
    }
}

impl<'a> IntoKey<'a> for Box<str> {
    fn into_key(self) -> Cow<'a, str> {
        Cow::Owned(self.into_string())
    }
}

impl<'a> IntoKey<'a> for Cow<'a, str> {
    fn into_key(self) -> Self {
        self
    }
}
