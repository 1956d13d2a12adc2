//! `#[invalidates]`: the body first; if it returned `Ok`, removals.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::Error;

use crate::args::Args;
use crate::function::Function;
use crate::template::Template;

const ALLOWED: [&str; 3] = ["cache", "keys", "tags"];

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let args = Args::parse("invalidates", &ALLOWED, args)?;
    let function = Function::parse("invalidates", item)?;
    let cache = args.cache()?;
    if args.keys.is_empty() && args.tags.is_empty() {
        let say = "say what to remove: `keys = [\"user:{id}\"]`, `tags = [\"users\"]`, or both";
        return Err(Error::new(Span::call_site(), say));
    }
    let names = function.names();
    args.keys.iter().chain(&args.tags).try_for_each(|template| template.check(&names))?;

    let inner = function.inner(None);
    let (before, removal) = removal(&args, &function);
    let names = function.params.iter().map(|param| &param.name);
    let passed: Vec<_> =
        names.filter(|name| function.uses(name)).map(|name| quote!(#name)).collect();
    let call = inner.call(&function.this(), &passed);
    let or_error = quote_spanned!(function.answer()=> ?);
    let done = Ident::new("done", Span::mixed_site());
    let body = match function.returns_unit() {
        true => quote! {
            #before
            #call.await?;
            #cache #removal.await #or_error;
            Ok(())
        },
        false => quote! {
            #before
            let #done = #call.await?;
            #cache #removal.await #or_error;
            Ok(#done)
        },
    };
    Ok(function.expand(&body, &inner))
}

/// The names, which are written before the body takes the arguments, and the call that removes.
fn removal(args: &Args, function: &Function) -> (TokenStream, TokenStream) {
    let this = function.this();
    let own = |name: &str| Ident::new(name, Span::mixed_site());
    let list = |name: &str, list: &[Template]| {
        if list.iter().all(Template::is_fixed) {
            let texts = list.iter().map(|text| text.text(&this));
            return (None, quote!([#(#texts),*]));
        }
        let (name, texts) = (own(name), list.iter().map(|text| text.string(&this)));
        (Some(quote!(let #name = [#(#texts),*];)), quote!(#name))
    };
    let (let_tags, tags) = list("tags", &args.tags);
    let (let_keys, keys) = match &args.keys[..] {
        [key] if key.is_fixed() => (None, key.text(&this)),
        [key] => {
            let (name, text) = (own("key"), key.text(&this));
            (Some(quote!(let #name = #text;)), quote!(&#name))
        }
        keys => list("keys", keys),
    };
    let removal = match (args.keys.len(), args.tags.is_empty()) {
        (0, _) => quote!(.remove_by_tags(#tags)),
        (1, true) => quote!(.remove(#keys)),
        (1, false) => quote!(.remove(#keys).and_tags(#tags)),
        (_, true) => quote!(.remove_many(#keys)),
        (_, false) => quote!(.remove_many(#keys).and_tags(#tags)),
    };
    (quote!(#let_keys #let_tags), removal)
}
