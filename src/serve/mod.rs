//! The weights server: immutable bytes and model metadata out of an object store, over HTTP/1.1. It infers nothing and
//! keeps no state of its own, so any number of servers and caches run side by side.
//!
//! ```text
//! GET /blobs/sha256/{hex}               immutable bytes, single ranges, strong ETag = digest
//! GET /targets/{hex}.manifest.json      immutable manifest
//! GET /v2/models                        all models with their versions
//! GET /v2/models/{m}                    a model with all versions, oldest first
//! GET /v2/models/{m}/versions/{v}       immutable version document: signature, digest of the manifest
//! GET /healthz, GET /metrics            for the operator
//! GET /…                                files of a folder, if one is given
//! ```
//! HEAD works wherever GET does. Errors are `application/problem+json` (RFC 9457) with the stable `code` of our errors.

mod files;
mod http;
pub mod listen;
mod metrics;
mod models;
mod observe;
mod problem;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use object_store::path::Path;
use tower_http::cors::{Any, CorsLayer};

use crate::error::{Error, Kind, Result};
use crate::store::Store;

/// A Content-Security-Policy under which a page that runs models works: no inline code, no eval, nothing from elsewhere.
pub const STRICT_CSP: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; \
     img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self'; connect-src 'self'; worker-src 'self'; \
     manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Sizes of objects that a server remembers at most; past that it forgets all and asks the store again.
const MAX_SIZES: usize = 1 << 16;

/// What a server serves, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// A folder of files to serve at `/` (a web page), cross-origin isolated.
    pub www: Option<PathBuf>,
    /// The Content-Security-Policy of these files; `None` sends none.
    pub csp: Option<String>,
    /// The longest time until a response begins, and between two pieces of its body.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config { www: None, csp: Some(STRICT_CSP.into()), timeout: Duration::from_secs(30) }
    }
}

/// What the handlers share.
pub struct Server {
    store: Store,
    www: Option<files::Folder>,
    timeout: Duration,
    metrics: metrics::Metrics,
    /// Objects never change, so neither do their sizes.
    sizes: Mutex<HashMap<Path, u64>>,
}

type Shared = State<Arc<Server>>;

impl Server {
    /// A server over `store`.
    pub fn new(store: Store, config: Config) -> Result<Arc<Server>> {
        let www = config.www.map(|folder| files::Folder::open(&folder, config.csp.as_deref())).transpose()?;
        Ok(Arc::new(Server {
            store,
            www,
            timeout: config.timeout,
            metrics: metrics::Metrics::default(),
            sizes: Mutex::default(),
        }))
    }

    /// The size of an immutable object in bytes, or `NotFound`.
    async fn size(&self, key: &Path) -> Result<u64> {
        let sizes = || self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(size) = sizes().get(key) {
            return Ok(*size);
        }
        let size = self.store.size(key).await?.ok_or_else(|| Error::new(Kind::NotFound, format!("no {key}")))?;
        let mut sizes = sizes();
        if sizes.len() >= MAX_SIZES {
            sizes.clear();
        }
        sizes.insert(key.clone(), size);
        Ok(size)
    }
}

/// The routes of a server.
pub fn app(server: Arc<Server>) -> Router {
    Router::new()
        .route("/blobs/sha256/{hex}", get(models::blob))
        .route("/targets/{file}", get(models::manifest))
        .route("/v2/models", get(models::list))
        .route("/v2/models/{model}", get(models::model))
        .route("/v2/models/{model}/versions/{version}", get(models::version))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics_text))
        .fallback(files::serve)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&server), observe::observe))
        .layer(cors())
        .with_state(server)
}

/// Any page may read everything that is served: nothing here depends on who asks. A single `Range` needs no preflight.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers([
            header::RANGE,
            header::IF_RANGE,
            header::IF_NONE_MATCH,
            header::IF_MATCH,
            header::CACHE_CONTROL,
        ])
        .expose_headers([
            header::ACCEPT_RANGES,
            header::CONTENT_LENGTH,
            header::CONTENT_RANGE,
            header::ETAG,
            header::RETRY_AFTER,
        ])
        .max_age(Duration::from_secs(24 * 60 * 60))
        // The answer is the same for every origin; a Vary would split caches.
        .vary::<[HeaderName; 0]>([])
}

/// Whether this process answers. It says nothing of the store, so that a store's outage does not restart every server.
async fn healthz() -> Response {
    ([(header::CACHE_CONTROL, "no-store")], axum_json(r#"{"status":"ok"}"#)).into_response()
}

async fn metrics_text(State(server): Shared) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (headers, server.metrics.render()).into_response()
}

fn axum_json(body: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], body)
}

#[cfg(test)]
mod tests;
