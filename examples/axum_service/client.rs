//! The client of the service.

use std::net::SocketAddr;

/// A client of one instance.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self { http: reqwest::Client::new(), base: format!("http://{addr}") }
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<String> {
        Self::text(self.http.get(self.url(path))).await
    }

    pub(crate) async fn put(&self, path: &str, body: &str) -> anyhow::Result<String> {
        Self::text(self.http.put(self.url(path)).body(body.to_owned())).await
    }

    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<String> {
        Self::text(self.http.delete(self.url(path))).await
    }

    async fn text(request: reqwest::RequestBuilder) -> anyhow::Result<String> {
        Ok(request.send().await?.error_for_status()?.text().await?)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}
