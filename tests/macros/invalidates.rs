//! Writers: the body first, then removals.

use std::sync::Arc;

use crinkle::{Cache, ErrorKind, cached, invalidates};
use parking_lot::Mutex;

use crate::{ShopError, cache};

/// A database of names, and a cache of what it says.
#[derive(Clone)]
struct Shop {
    cache: Cache,
    names: Arc<Mutex<Vec<String>>>,
}

impl Shop {
    fn new() -> Self {
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        Self { cache: cache(), names: Arc::new(Mutex::new(names)) }
    }

    #[cached(cache = self.cache, key = "name:{id}", tags = ["name"])]
    async fn name(&self, id: usize) -> Result<String, ShopError> {
        Ok(self.names.lock()[id].clone())
    }

    #[cached(cache = self.cache, key = "all", tags = ["lists", "of:{letter}"])]
    async fn all(&self, letter: char) -> Result<Vec<String>, ShopError> {
        Ok(self.names.lock().iter().filter(|name| name.contains(letter)).cloned().collect())
    }

    #[invalidates(cache = self.cache, keys = ["name:{id}"])]
    async fn rename(&self, id: usize, name: &str) -> Result<(), ShopError> {
        if name.is_empty() {
            return Err(ShopError::NoSuchProduct(0));
        }
        name.clone_into(&mut self.names.lock()[id]);
        // Until the body has returned, readers have the old value.
        assert_eq!(self.name(id).await?, ["a", "b", "c"][id]);
        Ok(())
    }

    #[invalidates(cache = self.cache, keys = ["name:{id}", "name:{other}"], tags = ["lists"])]
    async fn swap(&mut self, id: usize, other: usize) -> Result<usize, ShopError> {
        self.names.lock().swap(id, other);
        Ok(id + other)
    }

    #[invalidates(cache = self.cache, tags = ["name", "of:{letter}"])]
    async fn refill(&self, name: String, letter: char) -> Result<(), ShopError> {
        self.names.lock().fill(name);
        Ok(())
    }

    #[invalidates(cache = self.cache, keys = ["name:{name}"], tags = ["name"])]
    async fn added(&self, name: String) -> Result<String, ShopError> {
        self.names.lock().push(name.clone());
        Ok(name)
    }
}

async fn names(shop: &Shop) -> String {
    let mut names = String::new();
    for id in 0..3 {
        names += &shop.name(id).await.expect("a name");
    }
    names
}

#[tokio::test(start_paused = true)]
async fn a_key_is_removed_after_the_body_succeeded() {
    let shop = Shop::new();
    assert_eq!(names(&shop).await, "abc");
    shop.rename(1, "x").await.unwrap();
    assert_eq!(names(&shop).await, "axc");
}

#[tokio::test(start_paused = true)]
async fn after_an_error_nothing_is_removed() {
    let shop = Shop::new();
    assert_eq!(names(&shop).await, "abc");
    "x".clone_into(&mut shop.names.lock()[1]);
    let error = shop.rename(1, "").await.unwrap_err();
    assert!(matches!(error, ShopError::NoSuchProduct(0)));
    assert_eq!(names(&shop).await, "abc");
}

#[tokio::test(start_paused = true)]
async fn several_keys_and_tags_are_removed_at_once() {
    let mut shop = Shop::new();
    assert_eq!((names(&shop).await.as_str(), shop.all('a').await.unwrap().len()), ("abc", 1));
    assert_eq!(shop.swap(0, 2).await.unwrap(), 2);
    assert_eq!(names(&shop).await, "cba");
    assert!(shop.cache.get::<Vec<String>>("all").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn tags_are_removed_after_the_body_has_taken_its_arguments() {
    let shop = Shop::new();
    assert_eq!((names(&shop).await.as_str(), shop.all('a').await.unwrap().len()), ("abc", 1));
    shop.refill("aa".to_owned(), 'a').await.unwrap();
    assert_eq!((names(&shop).await.as_str(), shop.all('a').await.unwrap().len()), ("aaaaaa", 3));
    assert_eq!(shop.added("1".to_owned()).await.unwrap(), "1");
    assert!(shop.cache.get::<String>("name:1").await.unwrap().is_none());
}

/// The write has happened: the error says that the cache has removed nothing.
#[tokio::test(start_paused = true)]
async fn a_removal_that_fails_is_an_error_after_the_write() {
    let shop = Shop::new();
    assert_eq!(names(&shop).await, "abc");
    let too_long = "x".repeat(1 << 16);
    let ShopError::Cache(error) = shop.added(too_long).await.unwrap_err() else {
        panic!("an error of the cache")
    };
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
    assert_eq!((names(&shop).await.as_str(), shop.names.lock().len()), ("abc", 4));
}
