//! The attributes of Crinkle: `#[cached]` for async functions that load, `#[invalidates]` for those
//! that write. Use them through `crinkle` with the feature `macros`; docs/macros.md is their guide.
//!
//! Both expand to the code that one would write by hand. `args` reads the attribute, `template` the
//! names in its strings, `function` the function below it; `cached` and `invalidates` write.

mod args;
mod cached;
#[cfg(test)]
mod documented;
mod duration;
mod function;
mod invalidates;
mod template;

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;

/// Answers an async function from a cache; the body runs as the factory of `get_or_set`.
///
/// ```
/// use crinkle::{Cache, cached};
///
/// #[derive(Clone)]
/// struct Shop {
///     cache: Cache,
/// }
///
/// impl Shop {
///     #[cached(cache = self.cache, key = "name:{id}", tags = ["names"], ttl = "60s")]
///     async fn name(&self, id: u32) -> Result<String, crinkle::Error> {
///         Ok(format!("product {id}")) // your database
///     }
/// }
/// ```
///
/// | argument | meaning |
/// |---|---|
/// | `cache = self.cache` | the cache: any expression; required |
/// | `key = "user:{id}"` | the key; required. `{id}` names an argument, `{self.tenant}` a field |
/// | `tags = ["users", "tenant:{tenant}"]` | the tags of what is loaded |
/// | `ttl = "60s"` | its TTL: a text checked at compile time, or an expression of type `Duration` |
/// | `fail_safe`, `fail_safe = "1h"` | keeps it as a fallback, for a day or this long; or an expression of type `FailSafe` |
/// | `stale_while_revalidate = "5m"` | for so long after `ttl`, callers get the old value at once while one load replaces it |
/// | `when = \|user\| user.active` | keeps only values for which this is true; callers get the others all the same |
/// | `skip_err` | states that an `Err` is never kept, which is so without it too |
///
/// # The function
///
/// It returns `Result<T, E>`, where `E: From<crinkle::Error>`: a call can fail in the cache. The
/// value is cloned for the caller. With `Result<Cached<T>, E>` the caller shares it instead, and
/// the body still returns `Result<T, E>`.
///
/// The load may outlive the call. So every call, a hit included, clones `self` and the reference
/// arguments that the body uses, and moves the other arguments.
///
/// # Errors
///
/// Those of `get_or_set`, converted by `E::from`. The body's own error is in
/// `crinkle::Error::factory_error`.
///
/// # Cancel safety
///
/// As `get_or_set`: dropping the future does not stop a load that has begun.
#[proc_macro_attribute]
pub fn cached(args: TokenStream, item: TokenStream) -> TokenStream {
    run(cached::expand, args, item)
}

/// Removes keys and tags from a cache after an async function returned `Ok`.
///
/// ```
/// use crinkle::{Cache, invalidates};
///
/// #[invalidates(cache = cache, keys = ["name:{id}"], tags = ["lists"])]
/// async fn rename(cache: &Cache, id: u32, name: &str) -> Result<(), crinkle::Error> {
///     println!("{name}"); // your database; commit before you return
///     Ok(())
/// }
/// ```
///
/// | argument | meaning |
/// |---|---|
/// | `cache = self.cache` | the cache: any expression; required |
/// | `keys = ["user:{id}"]` | the keys to remove; names in braces as in `#[cached]` |
/// | `tags = ["tenant:{tenant}"]` | the tags to remove by |
///
/// # Errors
///
/// The body's error, after which nothing is removed. If the body succeeds and the removal fails,
/// the error of the removal, converted by `E::from`: the write has happened. A server that is down
/// is no such failure: the cache queues the removal and repeats it.
///
/// # Cancel safety
///
/// Dropping the future between the write and the removal leaves the old value cached until its TTL
/// ends.
#[proc_macro_attribute]
pub fn invalidates(args: TokenStream, item: TokenStream) -> TokenStream {
    run(invalidates::expand, args, item)
}

/// Expands. On an error the function stays as it is, so that its callers are not errors too.
fn run(
    expand: fn(Tokens, Tokens) -> syn::Result<Tokens>,
    args: TokenStream,
    item: TokenStream,
) -> TokenStream {
    let item = Tokens::from(item);
    match expand(args.into(), item.clone()) {
        Ok(expanded) => expanded.into(),
        Err(error) => {
            let error = error.into_compile_error();
            quote::quote!(#error #item).into()
        }
    }
}
