use std::borrow::Cow;

/// An item of the tags of a request: one tag, several, or none.
///
/// So an `Option` of tags is a list of tags too, and a request keeps its type in every branch:
///
/// ```
/// # use crinkle_core::Cache;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), crinkle_core::Error> {
/// # let cache = Cache::builder("shop").build()?;
/// let (on_sale, extra) = (true, Some(vec!["new".to_owned()]));
/// cache.set("product:1", 9).tags(["products"]).await?;
/// cache.set("product:2", 9).tags(on_sale.then_some("sale")).await?;
/// cache.set("product:3", 9).tags(on_sale.then_some(["sale", "products"])).await?;
/// cache.set("product:4", 9).tags(extra).await?;
/// # assert_eq!(cache.get::<i32>("product:4").await?.unwrap().meta().tags().next(), Some("new"));
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a tag",
    label = "neither a string nor a list of strings",
    note = "`.tags(..)` takes `[\"products\"]`, a `Vec<String>`, an `Option` of those, or an iterator of strings"
)]
pub trait IntoTags {
    /// Adds the tags to those of a request.
    fn add_to(self, tags: &mut Vec<String>);
}

macro_rules! one_tag {
    ($($string:ty),*) => {
        $(impl IntoTags for $string {
            fn add_to(self, tags: &mut Vec<String>) {
                tags.push(self.into());
            }
        })*
    };
}

one_tag!(&str, String, &String, Box<str>, Cow<'_, str>);

impl IntoTags for &&str {
    fn add_to(self, tags: &mut Vec<String>) {
        tags.push((*self).to_owned());
    }
}

impl<S: IntoTags> IntoTags for Option<S> {
    fn add_to(self, tags: &mut Vec<String>) {
        self.into_iter().for_each(|item| item.add_to(tags));
    }
}

impl<S: IntoTags> IntoTags for Vec<S> {
    fn add_to(self, tags: &mut Vec<String>) {
        self.into_iter().for_each(|item| item.add_to(tags));
    }
}

impl<S: IntoTags, const N: usize> IntoTags for [S; N] {
    fn add_to(self, tags: &mut Vec<String>) {
        self.into_iter().for_each(|item| item.add_to(tags));
    }
}

pub(super) fn collected(items: impl IntoIterator<Item: IntoTags>) -> Vec<String> {
    let mut tags = Vec::new();
    items.into_iter().for_each(|item| item.add_to(&mut tags));
    tags
}
