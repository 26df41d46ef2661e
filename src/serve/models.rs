//! Blobs, manifests, models and versions.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use bytes::Bytes;
use object_store::{GetOptions, GetResultPayload};
use serde::Serialize;

use super::http::{self, ETag, IMMUTABLE, REVALIDATE, Representation};
use super::problem::Problem;
use super::{Server, Shared};
use crate::error::{Error, Kind, Result};
use crate::plan::digest::Digest;
use crate::plan::version::Version;
use crate::store::layout;
use crate::store::models::Listed;
use crate::trust::digest::sha256;

type Answer = Result<Response, Problem>;
type Param<T> = Result<Path<T>, PathRejection>;

/// A path parameter, or an error of ours instead of axum's plain text.
fn param<T>(param: Param<T>) -> Result<T> {
    param.map(|Path(value)| value).map_err(|e| Error::new(Kind::InvalidInput, e.body_text()))
}

/// `GET /blobs/sha256/{hex}`.
pub(super) async fn blob(State(server): Shared, hex: Param<String>, method: Method, headers: HeaderMap) -> Answer {
    let digest: Digest = param(hex)?.parse()?;
    object(&server, &layout::blob(&digest), &digest, "application/octet-stream", &method, &headers).await
}

/// `GET /targets/{hex}.manifest.json`.
pub(super) async fn manifest(State(server): Shared, file: Param<String>, method: Method, headers: HeaderMap) -> Answer {
    let file = param(file)?;
    let hex = file.strip_suffix(".manifest.json");
    let hex = hex.ok_or_else(|| Error::new(Kind::NotFound, "targets are named {sha256}.manifest.json"))?;
    let digest: Digest = hex.parse()?;
    object(&server, &layout::manifest(&digest), &digest, "application/json", &method, &headers).await
}

/// `GET /v2/models`.
pub(super) async fn list(State(server): Shared, method: Method, headers: HeaderMap) -> Answer {
    #[derive(Serialize)]
    struct Body {
        models: Vec<Listed>,
    }
    let models = server.store.models().await?;
    json(&Body { models }, &method, &headers)
}

/// `GET /v2/models/{m}`.
pub(super) async fn model(State(server): Shared, name: Param<String>, method: Method, headers: HeaderMap) -> Answer {
    let model = server.store.model(&param(name)?).await?;
    json(&model, &method, &headers)
}

/// `GET /v2/models/{m}/versions/{v}`.
pub(super) async fn version(
    State(server): Shared,
    path: Param<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Answer {
    let (name, version) = param(path)?;
    let version: Version = version.parse()?;
    let bytes = server.store.version_bytes(&name, &version).await?;
    Ok(in_memory(bytes, IMMUTABLE, &method, &headers))
}

/// An immutable object of the store whose digest is known.
async fn object(
    server: &Server,
    key: &object_store::path::Path,
    digest: &Digest,
    content_type: &'static str,
    method: &Method,
    headers: &HeaderMap,
) -> Answer {
    let size = server.size(key).await?;
    let representation = Representation { etag: ETag::strong(digest), size, content_type, cache_control: IMMUTABLE };
    let decision = http::decide(method, headers, &representation.etag, size);
    let body = match representation.wanted(method, &decision) {
        None => Body::empty(),
        Some(range) => {
            let result = server.store.get(key, GetOptions::new().with_range(Some(range.clone()))).await?;
            if result.range != range {
                let message = format!("the store gave bytes {:?}, not {range:?}", result.range);
                return Err(Error::new(Kind::Integrity, message).at(key).into());
            }
            match result.payload {
                GetResultPayload::File(file, _) => http::stream(http::file_pieces(file, range), server.timeout),
                GetResultPayload::Stream(pieces) => http::stream(pieces, server.timeout),
            }
        }
    };
    Ok(representation.response(decision, body))
}

/// A listing: it changes, so caches ask again, with its digest as the tag.
fn json(value: &impl Serialize, method: &Method, headers: &HeaderMap) -> Answer {
    let bytes = serde_json::to_vec(value).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
    Ok(in_memory(bytes.into(), REVALIDATE, method, headers))
}

fn in_memory(bytes: Bytes, cache_control: &'static str, method: &Method, headers: &HeaderMap) -> Response {
    let etag = ETag::strong(sha256(&bytes));
    let size = bytes.len() as u64;
    Representation { etag, size, content_type: "application/json", cache_control }.respond_with(method, headers, bytes)
}
