//! Around every request: a time limit, the log line, the counters, and headers that every response has.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;

use super::problem::Problem;
use super::{Server, Shared};
use crate::error::{Error, Kind};

/// The label of requests that no route matches.
const OTHER: &str = "/*";

pub(super) async fn observe(State(server): Shared, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or(OTHER, MatchedPath::as_str).to_owned();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let in_flight = server.metrics.begin();
    let response = match tokio::time::timeout(server.timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::from(Error::new(Kind::Timeout, "the store took too long")).into_response(),
    };
    drop(in_flight);
    let (elapsed, status) = (start.elapsed(), response.status().as_u16());
    server.metrics.response(&route, &method, status, elapsed);
    let ms = elapsed.as_secs_f64() * 1e3;
    // Debug form: what a client sends may not break the lines of the log.
    tracing::info!(target: "nearside::access", %method, path = ?path, status, ms, "request");
    let mut response = count_bytes(response, Arc::clone(&server), route);
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // A page that is cross-origin isolated may load from this server.
    let resource_policy = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(resource_policy, HeaderValue::from_static("cross-origin"));
    response
}

/// Counts the bytes of a body as they go out.
fn count_bytes(response: Response, server: Arc<Server>, route: String) -> Response {
    let (parts, body) = response.into_parts();
    // Small bodies are in memory and keep their exact size.
    if let Some(size) = axum::body::HttpBody::size_hint(&body).exact() {
        server.metrics.bytes(&route, size);
        return Response::from_parts(parts, body);
    }
    let counted = body.into_data_stream().inspect(move |piece| {
        if let Ok(piece) = piece {
            server.metrics.bytes(&route, piece.len() as u64);
        }
    });
    Response::from_parts(parts, Body::from_stream(counted))
}
