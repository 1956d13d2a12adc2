//! Lengths of time: a text such as `"60s"`, checked here, or an expression.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::{Error, Expr, LitStr};

/// The shortest TTL that a cache accepts.
const SHORTEST: Duration = Duration::from_millis(1);

/// A length of time in an attribute.
pub(crate) enum Length {
    /// A text, with its value.
    Known(Duration, Span),
    /// Anything else, which the compiler checks.
    Expr(Expr),
}

impl Parse for Length {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if !input.peek(LitStr) {
            return input.parse().map(Self::Expr);
        }
        let text: LitStr = input.parse()?;
        let refuse = |why: &str| {
            let shown = text.value();
            Error::new(
                text.span(),
                format!("{why}: {shown:?}; write for example \"60s\", \"5m\" or \"1h 30m\""),
            )
        };
        let known = humantime::parse_duration(&text.value())
            .map_err(|_| refuse("this is no length of time"))?;
        if known < SHORTEST {
            return Err(refuse("the shortest time is 1 ms"));
        }
        Ok(Self::Known(known, text.span()))
    }
}

impl ToTokens for Length {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match self {
            Self::Known(known, span) => tokens.extend(literal(*known, *span)),
            Self::Expr(expr) => expr.to_tokens(tokens),
        }
    }
}

/// The constructor in the largest unit that holds the value exactly.
fn literal(value: Duration, span: Span) -> TokenStream {
    if value.subsec_nanos() == 0 {
        let secs = proc_macro2::Literal::u64_unsuffixed(value.as_secs());
        return quote_spanned!(span=> ::std::time::Duration::from_secs(#secs));
    }
    if let (0, Ok(millis)) = (value.subsec_nanos() % 1_000_000, u64::try_from(value.as_millis())) {
        let millis = proc_macro2::Literal::u64_unsuffixed(millis);
        return quote_spanned!(span=> ::std::time::Duration::from_millis(#millis));
    }
    let (secs, nanos) = (value.as_secs(), value.subsec_nanos());
    quote_spanned!(span=> ::std::time::Duration::new(#secs, #nanos))
}
