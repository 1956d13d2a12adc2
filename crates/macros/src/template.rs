//! Keys and tags: texts whose braces name arguments.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::{Error, LitStr, Member};

/// A key or a tag.
pub(crate) struct Template {
    literal: LitStr,
    /// The text for `format!`, where fields have moved out of the braces.
    format: String,
    /// What its braces name, in order.
    places: Vec<Place>,
}

/// One pair of braces: an argument or `self`, and fields of it.
struct Place {
    root: Ident,
    fields: Vec<Member>,
}

impl Parse for Template {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let Ok(literal) = input.parse::<LitStr>() else {
            let say = "write a text such as \"user:{id}\", whose braces name arguments";
            return Err(input.error(say));
        };
        Self::new(literal)
    }
}

impl Template {
    fn new(literal: LitStr) -> syn::Result<Self> {
        let (text, span) = (literal.value(), literal.span());
        if text.is_empty() {
            return Err(Error::new(span, "keys and tags are not empty"));
        }
        let (mut format, mut places, mut rest) = (String::new(), Vec::new(), text.as_str());
        while let Some(at) = rest.find(['{', '}']) {
            let (before, braces) = rest.split_at(at);
            format += before;
            if let Some(escaped) = ["{{", "}}"].into_iter().find(|two| braces.starts_with(two)) {
                format += escaped;
                rest = &braces[2..];
                continue;
            }
            let Some(end) = braces.find('}').filter(|end| *end > 0) else {
                return Err(Error::new(span, "a brace is alone; write `{{` or `}}` for a brace"));
            };
            let inside = &braces[1..end];
            let (name, spec) = inside.split_once(':').unwrap_or((inside, ""));
            let place = Place::new(name.trim(), span)?;
            let shown = if place.fields.is_empty() { name.trim() } else { "" };
            let colon = if spec.is_empty() { "" } else { ":" };
            format += &format!("{{{shown}{colon}{spec}}}");
            places.push(place);
            rest = &braces[end + 1..];
        }
        format += rest;
        Ok(Self { literal, format, places })
    }

    /// Refuses names that are none of the arguments.
    pub(crate) fn check(&self, known: &[Ident]) -> syn::Result<()> {
        let unknown = self.places.iter().find(|place| !known.contains(&place.root));
        let Some(Place { root, .. }) = unknown else { return Ok(()) };
        let names: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
        let say = match &names[..] {
            [] => "it has none".to_owned(),
            names => format!("it has {}", names.join(", ")),
        };
        Err(Error::new(
            self.literal.span(),
            format!("`{{{root}}}` names no argument of the function; {say}"),
        ))
    }

    /// Whether every call has the same text.
    pub(crate) fn is_fixed(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether the text names this argument.
    pub(crate) fn names(&self, argument: &Ident) -> bool {
        self.places.iter().any(|place| place.root == *argument)
    }

    /// The text as a literal, if it is fixed, else as a `String`. `this` stands for `self`.
    pub(crate) fn text(&self, this: &Ident) -> TokenStream {
        let span = self.literal.span();
        if self.is_fixed() {
            let text = self.format.replace("{{", "{").replace("}}", "}");
            let text = LitStr::new(&text, span);
            return quote!(#text);
        }
        let format = LitStr::new(&self.format, span);
        let fields = self.places.iter().filter(|place| !place.fields.is_empty());
        let fields = fields.map(|Place { root, fields }| {
            let root = if root == "self" { this } else { root };
            quote!(, #root #(.#fields)*)
        });
        quote_spanned!(span=> format!(#format #(#fields)*))
    }

    /// The text as a `String`.
    pub(crate) fn string(&self, this: &Ident) -> TokenStream {
        let text = self.text(this);
        if self.is_fixed() { quote!(#text.to_owned()) } else { text }
    }
}

impl Place {
    fn new(path: &str, span: Span) -> syn::Result<Self> {
        let refuse = || {
            let say = format!(
                "`{{{path}}}` is no name; write `{{id}}` for an argument, `{{self.tenant}}` for a field"
            );
            Error::new(span, say)
        };
        let (root, fields) = path.split_once('.').map_or((path, None), |(a, b)| (a, Some(b)));
        let root = match root {
            "self" => Ident::new("self", span),
            name => syn::parse_str::<Ident>(name).map_err(|_| refuse())?,
        };
        let root = Ident::new(&root.to_string(), span);
        let fields = fields.into_iter().flat_map(|fields| fields.split('.'));
        let member = |field: &str| {
            let mut member: Member = syn::parse_str(field).map_err(|_| refuse())?;
            match &mut member {
                Member::Named(name) => name.set_span(span),
                Member::Unnamed(index) => index.span = span,
            }
            Ok(member)
        };
        let fields = fields.map(member).collect::<syn::Result<_>>()?;
        Ok(Self { root, fields })
    }
}
