//! What stands in the parentheses of an attribute.

use proc_macro2::{Ident, Span};
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Error, Expr, Token, bracketed};

use crate::duration::Length;
use crate::template::Template;

/// The arguments of both attributes; each has its own list of those that it allows.
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) cache: Option<Expr>,
    pub(crate) key: Option<Template>,
    pub(crate) keys: Vec<Template>,
    pub(crate) tags: Vec<Template>,
    pub(crate) ttl: Option<Length>,
    pub(crate) fail_safe: Option<FailSafe>,
    pub(crate) stale_while_revalidate: Option<Length>,
    pub(crate) when: Option<Expr>,
}

/// The value of `fail_safe`.
pub(crate) enum FailSafe {
    /// None was given.
    Default,
    /// A text; an expression is a whole `FailSafe`.
    For(Length),
}

impl Args {
    /// Reads the arguments of `attribute`, which may be those of `allowed`.
    pub(crate) fn parse(
        attribute: &str,
        allowed: &[&str],
        tokens: proc_macro2::TokenStream,
    ) -> syn::Result<Self> {
        let read = |input: ParseStream<'_>| {
            let (mut args, mut seen) = (Self::default(), Vec::<Ident>::new());
            while !input.is_empty() {
                let name: Ident = input.parse()?;
                if !allowed.iter().any(|allowed| name == allowed) {
                    let list = allowed.join("`, `");
                    let say = format!("`{attribute}` has no argument `{name}`; it has `{list}`");
                    return Err(Error::new(name.span(), say));
                }
                if seen.contains(&name) {
                    return Err(Error::new(name.span(), format!("`{name}` is here twice")));
                }
                args.read(&name, input)?;
                seen.push(name);
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(args)
        };
        read.parse2(tokens)
    }

    fn read(&mut self, name: &Ident, input: ParseStream<'_>) -> syn::Result<()> {
        match name.to_string().as_str() {
            "skip_err" => {}
            "fail_safe" if !input.peek(Token![=]) => self.fail_safe = Some(FailSafe::Default),
            "fail_safe" => self.fail_safe = Some(FailSafe::For(value(name, input)?)),
            "cache" => self.cache = Some(value(name, input)?),
            "key" => self.key = Some(value(name, input)?),
            "keys" => self.keys = value::<List>(name, input)?.0,
            "tags" => self.tags = value::<List>(name, input)?.0,
            "ttl" => self.ttl = Some(value(name, input)?),
            "stale_while_revalidate" => {
                self.stale_while_revalidate = Some(value(name, input)?);
            }
            _ => self.when = Some(value(name, input)?),
        }
        Ok(())
    }

    /// The cache, without which there is nothing to do.
    pub(crate) fn cache(&self) -> syn::Result<&Expr> {
        self.cache.as_ref().ok_or_else(|| {
            let say = "say which cache: `cache = self.cache`, or any other expression";
            Error::new(Span::call_site(), say)
        })
    }
}

/// Reads `= value`.
fn value<T: Parse>(name: &Ident, input: ParseStream<'_>) -> syn::Result<T> {
    if !input.peek(Token![=]) {
        return Err(Error::new(name.span(), format!("`{name}` needs a value: `{name} = ..`")));
    }
    input.parse::<Token![=]>()?;
    input.parse()
}

/// Texts in brackets.
struct List(Vec<Template>);

impl Parse for List {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if !input.peek(syn::token::Bracket) {
            return Err(input.error("write a list: `[\"users\", \"tenant:{tenant}\"]`"));
        }
        let content;
        bracketed!(content in input);
        let list = Punctuated::<Template, Token![,]>::parse_terminated(&content)?;
        Ok(Self(list.into_iter().collect()))
    }
}
