//! `#[cached]`: the body becomes the factory of `get_or_set`.

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::Error;
use syn::spanned::Spanned;

use crate::args::{Args, FailSafe};
use crate::duration::Length;
use crate::function::{Function, Inner, mentions};

const ALLOWED: [&str; 8] =
    ["cache", "key", "tags", "ttl", "fail_safe", "stale_while_revalidate", "when", "skip_err"];

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let args = Args::parse("cached", &ALLOWED, args)?;
    let function = Function::parse("cached", item)?;
    check(&args, &function)?;
    let inner = function.inner(function.uncached());
    let body = body(&args, &function, &inner)?;
    Ok(function.expand(&body, &inner))
}

fn check(args: &Args, function: &Function) -> syn::Result<()> {
    args.cache()?;
    let names = function.names();
    args.key.iter().chain(&args.tags).try_for_each(|template| template.check(&names))?;
    if args.stale_while_revalidate.is_some() && args.ttl.is_none() {
        let say = "`stale_while_revalidate` begins where the TTL ends: add `ttl = \"60s\"`";
        return Err(Error::new(Span::call_site(), say));
    }
    if function.borrows_self() == Some(true) {
        let say = "a load may outlive the call, and callers share it: take `&self`";
        return Err(Error::new(function.this().span(), say));
    }
    Ok(())
}

/// A name of the expansion, which no name of the user's meets.
fn own(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

fn body(args: &Args, function: &Function, inner: &Inner) -> syn::Result<TokenStream> {
    let Some(key) = &args.key else {
        let say =
            "say under which key: `key = \"user:{id}\"`, with the arguments that decide the value";
        return Err(Error::new(Span::call_site(), say));
    };
    let (cache, cached, load) = (args.cache()?, own("cached"), own("load"));
    let text = key.text(&function.this());
    let (let_key, key) = match key.is_fixed() {
        true => (None, text),
        false => {
            let key = own("key");
            (Some(quote!(let #key = #text;)), quote!(&#key))
        }
    };
    let factory = factory(args, function, inner)?;
    let (let_times, setters) = setters(args);
    let answer = match function.uncached().is_some() {
        true => quote!(Ok(#cached)),
        false => {
            let into = quote_spanned!(function.answer()=> ::crinkle::Cached::into_inner(#cached));
            quote!(Ok(#into))
        }
    };
    let call = quote_spanned!(function.answer()=> .get_or_set(#key, #load));
    let or_error = quote_spanned!(function.answer()=> ?);
    Ok(quote! {
        #let_key
        #let_times
        let #load = #factory;
        let #cached = #cache #call #setters .await #or_error;
        #answer
    })
}

/// The factory, in a block with the clones that it owns.
fn factory(args: &Args, function: &Function, inner: &Inner) -> syn::Result<TokenStream> {
    let (this, ctx, loaded) = (own("this"), own("ctx"), own("loaded"));
    let late_tags = args.tags.iter().any(|tag| !tag.is_fixed());
    let tags = if late_tags { &args.tags[..] } else { &[] };
    let in_tags = |name: &Ident| tags.iter().any(|tag| tag.names(name));
    let in_when = |name: &Ident| mentions(args.when.to_token_stream(), &name.to_string());
    let (mut clones, mut passed, mut borrows) = (Vec::new(), Vec::new(), inner.takes_self);
    if inner.takes_self || in_tags(&function.this()) {
        let borrow = function.borrows_self().is_none().then(|| quote!(&));
        let own = function.this();
        let clone = quote_spanned!(own.span()=> Clone::clone(#borrow #own));
        clones.push(quote!(let #this = #clone;));
    }
    for param in &function.params {
        let name = &param.name;
        let in_body = function.uses(name);
        if !in_body && !in_tags(name) && !in_when(name) {
            continue;
        }
        let is_cloned = param.is_cloned()?;
        let borrow = is_cloned.then(|| quote!(&));
        if in_body {
            passed.push(quote!(#borrow #name));
        }
        if is_cloned {
            let owned = quote_spanned!(param.ty.span()=> ToOwned::to_owned(#name));
            clones.push(quote!(let #name = #owned;));
        } else if args.outside(name) {
            clones.push(quote!(let #name = Clone::clone(&#name);));
        }
        borrows |= is_cloned && in_body;
    }
    let call = inner.call(&this, &passed);
    let tags = tags.iter().map(|tag| tag.string(&this));
    let set_tags = late_tags.then(|| quote!(#ctx.set_tags([#(#tags),*]);));
    let load = match &args.when {
        Some(when) => quote! {
            let #loaded = #call.await;
            if !#loaded.as_ref().is_ok_and(#when) {
                #ctx.skip_store();
            }
            #loaded
        },
        None => quote!(#call.await),
    };
    let factory = match (set_tags.is_some() || args.when.is_some(), borrows) {
        (true, _) => {
            quote!(move |#ctx: ::crinkle::FactoryContext<_>| async move { #set_tags #load })
        }
        (false, true) => quote!(move |_| async move { #load }),
        (false, false) => quote!(move |_| #call),
    };
    Ok(if clones.is_empty() { factory } else { quote!({ #(#clones)* #factory }) })
}

/// The options of the call, and what they need before it.
fn setters(args: &Args) -> (TokenStream, TokenStream) {
    let tags = args.tags.iter().all(|tag| tag.is_fixed()).then(|| {
        let tags = args.tags.iter().map(|tag| tag.text(&own("this")));
        (!args.tags.is_empty()).then(|| quote!(.tags([#(#tags),*])))
    });
    let tags = tags.flatten();
    let (before, ttl) = match (&args.ttl, &args.stale_while_revalidate) {
        (Some(ttl), Some(window)) => while_revalidating(ttl, window),
        (ttl, _) => (None, ttl.as_ref().map(|ttl| quote!(.duration(#ttl)))),
    };
    let fail_safe = args.fail_safe.as_ref().map(|fail_safe| match fail_safe {
        FailSafe::Default => quote!(::crinkle::FailSafe::default()),
        FailSafe::For(Length::Expr(whole)) => quote!(#whole),
        FailSafe::For(known) => quote!(::crinkle::FailSafe::for_up_to(#known)),
    });
    let fail_safe = fail_safe.map(|fail_safe| quote!(.fail_safe(#fail_safe)));
    (before.unwrap_or_default(), quote!(#tags #ttl #fail_safe))
}

/// Stale-while-revalidate is an eager refresh that is due from the end of the TTL on.
fn while_revalidating(ttl: &Length, window: &Length) -> (Option<TokenStream>, Option<TokenStream>) {
    if let (Length::Known(fresh, span), Length::Known(old, _)) = (ttl, window) {
        let total = Length::Known(*fresh + *old, *span);
        let [part, whole] =
            [*fresh, *fresh + *old].map(|time| Literal::f64_unsuffixed(time.as_secs_f64()));
        let eager = quote!(.eager_refresh(::crinkle::EagerRefresh::after(#part / #whole)));
        return (None, Some(quote!(.duration(#total) #eager)));
    }
    let (fresh, total) = (own("ttl"), own("total"));
    let before = quote! {
        let #fresh: ::std::time::Duration = #ttl;
        let #total = #fresh + #window;
    };
    let part = quote!(#fresh.as_secs_f64() / #total.as_secs_f64());
    let eager = quote!(.eager_refresh(::crinkle::EagerRefresh::after(#part)));
    (Some(before), Some(quote!(.duration(#total) #eager)))
}

impl Args {
    /// Whether an expression beside the factory uses this argument, which cannot move then.
    fn outside(&self, name: &Ident) -> bool {
        let fail_safe = self.fail_safe.as_ref().and_then(|fail_safe| match fail_safe {
            FailSafe::For(length) => Some(length),
            FailSafe::Default => None,
        });
        let (cache, ttl) = (&self.cache, &self.ttl);
        mentions(quote!(#cache #ttl #fail_safe), &name.to_string())
    }
}
