//! The function below an attribute: what it takes and returns, and its body as a function of its
//! own.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Error, FnArg, GenericArgument, GenericParam, ItemFn, Lifetime, ParenthesizedGenericArguments,
    Pat, PatIdent, PathArguments, PathSegment, Receiver, ReceiverKind, ReturnType, Signature, Type,
};

/// An async function with named arguments that returns a `Result`.
pub(crate) struct Function {
    item: ItemFn,
    /// The arguments, without `self`.
    pub(crate) params: Vec<Param>,
}

/// An argument with a name.
pub(crate) struct Param {
    pub(crate) name: Ident,
    pub(crate) ty: Type,
}

impl Function {
    /// Reads the item below `attribute`.
    pub(crate) fn parse(attribute: &str, item: TokenStream) -> syn::Result<Self> {
        let span =
            item.clone().into_iter().next().map_or_else(Span::call_site, |first| first.span());
        let item: ItemFn = syn::parse2(item).map_err(|_| {
            let say = format!("`#[{attribute}]` goes on an `async fn` with a body");
            Error::new(span, say)
        })?;
        let sig = &item.sig;
        if sig.asyncness.is_none() {
            let say = format!(
                "`#[{attribute}]` awaits the cache: write `async fn {}`. With `#[async_trait]`, put \
                 the attribute on a method outside of the trait",
                sig.ident
            );
            return Err(Error::new(sig.fn_token.span(), say));
        }
        let mut result = match &sig.output {
            ReturnType::Default => None,
            ReturnType::Type(_, ty) => Some((**ty).clone()),
        };
        let last = result.as_mut().and_then(last_of);
        if !last.is_some_and(|last| last.ident.to_string().ends_with("Result")) {
            let say = format!(
                "`{}` can fail in the cache (closed, an invalid key, a timeout): return `Result<T, \
                 E>`, where `E: From<crinkle::Error>`",
                sig.ident
            );
            let span = result.map_or_else(|| sig.ident.span(), |result| result.span());
            return Err(Error::new(span, say));
        }
        let typed = sig.inputs.iter().filter_map(|input| match input {
            FnArg::Typed(typed) => Some(typed),
            FnArg::Receiver(_) => None,
        });
        let params = typed.map(|typed| match &*typed.pat {
            Pat::Ident(PatIdent { by_ref: None, subpat: None, ident, .. }) => {
                Ok(Param { name: ident.clone(), ty: (*typed.ty).clone() })
            }
            pattern => {
                let say = "give the argument a name, and take it apart in the body";
                Err(Error::new(pattern.span(), say))
            }
        });
        let params = params.collect::<syn::Result<_>>()?;
        Ok(Self { item, params })
    }

    /// The names that keys and tags may use.
    pub(crate) fn names(&self) -> Vec<Ident> {
        let receiver = self.receiver().map(|_| self.this());
        receiver.into_iter().chain(self.params.iter().map(|param| param.name.clone())).collect()
    }

    fn receiver(&self) -> Option<&Receiver> {
        self.item.sig.receiver()
    }

    /// Whether a method borrows `self`, and mutably; `None` if it takes it by value.
    pub(crate) fn borrows_self(&self) -> Option<bool> {
        match &self.receiver()?.kind {
            ReceiverKind::Reference(_, _, mutability) => Some(mutability.is_some()),
            ReceiverKind::Typed(_, ty) => match &**ty {
                Type::Reference(to) => Some(to.mutability.is_some()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The word `self`.
    pub(crate) fn this(&self) -> Ident {
        let span = self.receiver().map_or_else(Span::call_site, |this| this.self_token.span());
        Ident::new("self", span)
    }

    /// Where the compiler shows that a type of the result does not fit.
    pub(crate) fn answer(&self) -> Span {
        match &self.item.sig.output {
            ReturnType::Type(_, result) => result.span(),
            ReturnType::Default => self.item.sig.ident.span(),
        }
    }

    /// Whether the body uses this name.
    pub(crate) fn uses(&self, name: &Ident) -> bool {
        mentions(self.item.block.to_token_stream(), &name.to_string())
    }

    /// Whether the result is `Result<(), E>`.
    pub(crate) fn returns_unit(&self) -> bool {
        let mut output = self.item.sig.output.clone();
        let ReturnType::Type(_, result) = &mut output else { return false };
        matches!(first_in(result), Some(Type::Tuple(tuple)) if tuple.elems.is_empty())
    }

    /// The type that the body returns, if callers get a `Cached<T>`: with `T` in its place.
    pub(crate) fn uncached(&self) -> Option<ReturnType> {
        let mut output = self.item.sig.output.clone();
        let ReturnType::Type(_, result) = &mut output else { return None };
        let cached = first_in(result)?;
        if last_of(cached)?.ident != "Cached" {
            return None;
        }
        *cached = first_in(cached)?.clone();
        Some(output)
    }

    /// The function that callers see, with another body and what stands beside it.
    pub(crate) fn expand(&self, body: &TokenStream, inner: &Inner) -> TokenStream {
        let ItemFn { attrs, vis, sig, .. } = &self.item;
        let mut sig = sig.clone();
        for input in &mut sig.inputs {
            match input {
                FnArg::Receiver(this) => this.mutability = None,
                FnArg::Typed(typed) => {
                    if let Pat::Ident(name) = &mut *typed.pat {
                        name.mutability = None;
                    }
                }
            }
        }
        let (nested, beside) = match inner.is_nested {
            true => (Some(&inner.item), None),
            false => (None, Some(&inner.item)),
        };
        quote! {
            #(#attrs)*
            #vis #sig {
                #nested
                #body
            }
            #beside
        }
    }

    /// The body under a name of its own, with the arguments that it uses. `result` replaces the
    /// type of the result.
    pub(crate) fn inner(&self, result: Option<ReturnType>) -> Inner {
        let Self { item: ItemFn { attrs, sig, block, .. }, .. } = self;
        let name = format_ident!("{}_uncached", sig.ident);
        let is_used = |input: &FnArg| match input {
            FnArg::Receiver(_) => self.uses(&self.this()),
            FnArg::Typed(typed) => match &*typed.pat {
                Pat::Ident(name) => self.uses(&name.ident),
                _ => true,
            },
        };
        let inner = Signature {
            ident: name.clone(),
            inputs: sig.inputs.iter().filter(|input| is_used(input)).cloned().collect(),
            output: result.unwrap_or_else(|| sig.output.clone()),
            ..sig.clone()
        };
        let on_both = ["cfg", "allow", "warn", "deny"];
        let kept =
            attrs.iter().filter(|attr| on_both.iter().any(|name| attr.path().is_ident(name)));
        let takes_self = inner.receiver().is_some();
        let is_associated = sig.receiver().is_some() || mentions(quote!(#sig #block), "Self");
        let generics = sig.generics.params.iter().filter_map(|param| match param {
            GenericParam::Type(param) => Some(&param.ident),
            GenericParam::Const(param) => Some(&param.ident),
            GenericParam::Lifetime(_) => None,
        });
        let generics: Vec<_> = generics.collect();
        let generics = (!generics.is_empty()).then(|| quote!(::<#(#generics),*>));
        let path = if is_associated && !takes_self { quote!(Self::#name) } else { quote!(#name) };
        Inner {
            item: quote!(#(#kept)* #inner #block),
            is_nested: !is_associated,
            takes_self,
            path: quote!(#path #generics),
        }
    }
}

/// The body of the function as one of its own.
pub(crate) struct Inner {
    item: TokenStream,
    /// Whether it stands inside of the function, and not beside the method.
    is_nested: bool,
    pub(crate) takes_self: bool,
    path: TokenStream,
}

impl Inner {
    /// Calls it with arguments, and `this` if it takes `self`.
    pub(crate) fn call(&self, this: &Ident, args: &[TokenStream]) -> TokenStream {
        let this = self.takes_self.then(|| quote!(#this.));
        let path = &self.path;
        quote!(#this #path(#(#args),*))
    }
}

impl Param {
    /// Whether a load, which may outlive the call, owns a clone of what this refers to. It owns
    /// other arguments themselves.
    pub(crate) fn is_cloned(&self) -> syn::Result<bool> {
        let refuse = |say: &str| {
            let say = format!("a load may outlive the call, so {say}");
            Err(Error::new(self.ty.span(), say))
        };
        match &self.ty {
            Type::Reference(to) if to.mutability.is_some() => refuse(
                "it cannot change what the caller has lent: take the value, or an `Arc` of a lock",
            ),
            Type::Reference(to) if !is_static(to.lifetime.as_ref()) => match &*to.elem {
                Type::TraitObject(_) => {
                    refuse("it cannot borrow `dyn` values, which have no `clone`: take an `Arc`")
                }
                elem if borrows(elem) => {
                    refuse("it cannot hold references to references: take owned values")
                }
                _ => Ok(true),
            },
            ty if borrows(ty) => refuse(
                "it cannot hold the reference in this type: take an owned one, as `Option<String>` \
                 for `Option<&str>`",
            ),
            _ => Ok(false),
        }
    }
}

/// Whether tokens contain this name, or a text with it in braces.
pub(crate) fn mentions(tokens: TokenStream, name: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == name,
        TokenTree::Group(group) => mentions(group.stream(), name),
        TokenTree::Literal(text) => text.to_string().contains(&format!("{{{name}")),
        TokenTree::Punct(_) => false,
    })
}

/// The last segment of a path, which is what a type is called.
fn last_of(ty: &mut Type) -> Option<&mut PathSegment> {
    match ty {
        Type::Path(path) => path.path.segments.last_mut(),
        _ => None,
    }
}

/// The first type in the angle brackets of a type.
fn first_in(ty: &mut Type) -> Option<&mut Type> {
    let PathArguments::AngleBracketed(args) = &mut last_of(ty)?.arguments else { return None };
    args.args.iter_mut().find_map(|arg| match arg {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

fn is_static(lifetime: Option<&Lifetime>) -> bool {
    lifetime.is_some_and(|lifetime| lifetime.ident == "static")
}

/// Whether a type holds a reference, or a lifetime, that is not `'static`.
fn borrows(ty: &Type) -> bool {
    struct Search(bool);

    impl<'ast> Visit<'ast> for Search {
        fn visit_type_reference(&mut self, reference: &'ast syn::TypeReference) {
            self.0 |= !is_static(reference.lifetime.as_ref());
            visit::visit_type_reference(self, reference);
        }

        fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
            self.0 |= !is_static(Some(lifetime));
        }

        /// The arguments of `Fn(&str)` are not held.
        fn visit_parenthesized_generic_arguments(
            &mut self,
            _: &'ast ParenthesizedGenericArguments,
        ) {
        }
    }

    let mut search = Search(false);
    search.visit_type(ty);
    search.0
}
