//! The expansions that docs/macros.md shows are those that the attributes write.

use std::fs;
use std::path::Path;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, File, ImplItem, Item, ItemImpl};

use crate::{cached, invalidates};

/// The blocks of code of a page, each with the text before it; without lines that it hides.
fn blocks(page: &str) -> Vec<(&str, String)> {
    let mut parts = page.split("```");
    let mut blocks = Vec::new();
    while let (Some(text), Some(block)) = (parts.next(), parts.next()) {
        let lines = block.lines().skip(1).filter(|line| *line != "#" && !line.starts_with("# "));
        blocks.push((text.trim(), lines.map(|line| format!("{line}\n")).collect()));
    }
    blocks
}

/// Takes one of our attributes away, and expands it.
fn expand(
    attrs: &mut Vec<Attribute>,
    rest: impl FnOnce(&[Attribute]) -> TokenStream,
) -> TokenStream {
    let ours =
        |attr: &Attribute| attr.path().is_ident("cached") || attr.path().is_ident("invalidates");
    let Some(at) = attrs.iter().position(ours) else { return rest(attrs) };
    let attr = attrs.remove(at);
    let args = attr.meta.require_list().expect("arguments").tokens.clone();
    let expand = if attr.path().is_ident("cached") { cached::expand } else { invalidates::expand };
    expand(args, rest(attrs)).expect("an expansion")
}

fn expanded(code: &str) -> String {
    let file: File = syn::parse_str(code).expect("items");
    let items = file.items.into_iter().map(|item| match item {
        Item::Fn(mut item) => {
            let mut attrs = std::mem::take(&mut item.attrs);
            expand(&mut attrs, |attrs| quote!(#(#attrs)* #item))
        }
        Item::Impl(mut item) => {
            let methods = std::mem::take(&mut item.items).into_iter().map(|method| match method {
                ImplItem::Fn(mut method) => {
                    let mut attrs = std::mem::take(&mut method.attrs);
                    expand(&mut attrs, |attrs| quote!(#(#attrs)* #method))
                }
                other => other.to_token_stream(),
            });
            let name = &item.self_ty;
            let item: ItemImpl = syn::parse_quote!(impl #name { #(#methods)* });
            item.to_token_stream()
        }
        other => other.to_token_stream(),
    });
    let items: TokenStream = items.collect();
    prettyplease::unparse(&syn::parse2(items).expect("items"))
}

#[test]
fn the_page_shows_what_the_attributes_write() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/macros.md");
    let page = fs::read_to_string(page).expect("the page");
    let blocks = blocks(&page);
    let pairs = blocks.windows(2).filter(|pair| pair[1].0 == "becomes");
    let (shown, written): (Vec<_>, Vec<_>) =
        pairs.map(|pair| (pair[1].1.clone(), expanded(&pair[0].1))).unzip();
    assert_eq!(shown.len(), 3);
    let written = written.join("\n");
    assert!(shown.join("\n") == written, "the page does not show\n{written}");
}
