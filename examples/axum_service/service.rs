//! The service itself: the code that an application would have.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, put};
use axum::{Json, Router};
use crinkle::redis::{RedisBackplane, RedisClient, RedisL2};
use crinkle::{Cache, Cached, EntryOptions, ErrorKind, FailSafe};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::time::sleep;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Product {
    id: u32,
    cents: u64,
}

/// The state of every handler. A clone copies only a few pointers.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    cache: Cache,
    database: Arc<Database>,
    metrics: PrometheusHandle,
}

impl Instance {
    pub(crate) async fn new(
        name: &str,
        redis: &str,
        database: Arc<Database>,
    ) -> anyhow::Result<Self> {
        // Install the recorder before building the cache, which takes its handles at build time.
        let metrics = recorder()?;
        let redis = RedisClient::connect(redis).await?;
        let cache = Cache::builder(name)
            .key_prefix("shop:")
            .default_options(
                EntryOptions::new(Duration::from_secs(60))
                    .jitter(Duration::from_secs(5))
                    .fail_safe(FailSafe::for_up_to(Duration::from_secs(3600))),
            )
            .l2(RedisL2::new(redis.clone()))
            .backplane(RedisBackplane::new(redis))
            .build()?;
        Ok(Self { cache, database, metrics })
    }
}

/// The process's only metrics recorder.
fn recorder() -> anyhow::Result<PrometheusHandle> {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = RECORDER.get() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new().install_recorder()?;
    Ok(RECORDER.get_or_init(|| handle).clone())
}

/// Serves until `stopped` ends; answers running requests, then closes the cache.
pub(crate) async fn serve(
    instance: Instance,
    listener: TcpListener,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let cache = instance.cache.clone();
    let router = Router::new()
        .route("/products/{id}", get(product))
        .route("/products/{id}/price", put(reprice))
        .route("/admin/tags/{tag}", delete(remove_by_tag))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .with_state(instance);
    axum::serve(listener, router).with_graceful_shutdown(stopped).await?;
    // Closing sends pending writes to Redis; an error says what is lost.
    Ok(cache.close().await?)
}

async fn product(
    State(app): State<Instance>,
    Path(id): Path<u32>,
) -> Result<Json<Cached<Product>>, (StatusCode, String)> {
    let database = Arc::clone(&app.database);
    let loaded = app
        .cache
        .get_or_set(key(id), move |_| async move { database.load(id).await })
        .tags(["products"])
        .await
        .map_err(answer)?;
    Ok(Json(loaded))
}

/// Writes the database before the cache, so that the next read loads the committed price.
async fn reprice(
    State(app): State<Instance>,
    Path(id): Path<u32>,
    cents: String,
) -> Result<StatusCode, (StatusCode, String)> {
    let cents = cents.trim().parse().map_err(|_| (StatusCode::BAD_REQUEST, "a number".into()))?;
    app.database.update(id, cents).await;
    app.cache.remove(key(id)).await.map_err(answer)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_by_tag(
    State(app): State<Instance>,
    Path(tag): Path<String>,
) -> Result<String, (StatusCode, String)> {
    let receipt = app.cache.remove_by_tag(&tag).await.map_err(answer)?;
    Ok(format!("removed {tag:?}; propagated to every instance: {}", receipt.is_propagated()))
}

async fn health(State(app): State<Instance>) -> String {
    format!("{:?}\n", app.cache.health())
}

async fn metrics(State(app): State<Instance>) -> String {
    app.metrics.render()
}

fn key(id: u32) -> String {
    format!("product:{id}")
}

/// Maps the kinds of errors to HTTP status codes.
fn answer(error: crinkle::Error) -> (StatusCode, String) {
    let status = match error.kind() {
        ErrorKind::InvalidKey | ErrorKind::InvalidTag => StatusCode::BAD_REQUEST,
        ErrorKind::FactoryTimeout | ErrorKind::WaitTimeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Closed => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    };
    (status, error.to_string())
}

/// A slow database.
#[derive(Debug)]
pub(crate) struct Database {
    prices: Mutex<HashMap<u32, u64>>,
    queries: AtomicUsize,
}

impl Database {
    pub(crate) fn new() -> Self {
        Self { prices: Mutex::default(), queries: AtomicUsize::new(0) }
    }

    async fn load(&self, id: u32) -> io::Result<Product> {
        self.queries.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(20)).await;
        let prices = self.prices.lock().map_err(|_| io::Error::other("poisoned"))?;
        Ok(Product { id, cents: prices.get(&id).copied().unwrap_or(999) })
    }

    async fn update(&self, id: u32, cents: u64) {
        sleep(Duration::from_millis(5)).await;
        self.correct(id, cents);
    }

    /// Changes a price without the service's knowledge.
    pub(crate) fn correct(&self, id: u32, cents: u64) {
        if let Ok(mut prices) = self.prices.lock() {
            prices.insert(id, cents);
        }
    }

    pub(crate) fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }
}
