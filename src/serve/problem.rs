//! Errors as `application/problem+json` (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::{Error, Kind};

/// The body of an error. `type` is absent, which means `about:blank`: the title is that of the status.
#[derive(Serialize)]
struct Body<'a> {
    title: &'static str,
    status: u16,
    /// The stable code of the error's kind.
    code: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
}

/// An error as a response.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    error: Error,
}

impl Problem {
    /// An error with another status than that of its kind.
    pub(super) fn new(status: StatusCode, error: Error) -> Self {
        Problem { status, error }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::InvalidInput => StatusCode::BAD_REQUEST,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::Io | Kind::Network | Kind::Timeout => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem { status, error }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Problem { status, error } = self;
        let internal = status.is_server_error();
        if internal {
            tracing::error!(target: "nearside::serve", %status, %error, "request failed");
        }
        // What went wrong inside (paths, the store's own words) is for the log, not for the network.
        let body = Body {
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code: error.kind().code(),
            detail: if internal { "the server could not read its store; its log says why" } else { error.message() },
            help: error.help_text().filter(|_| !internal),
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

/// The answer to a method that a route does not have.
pub(super) async fn method_not_allowed() -> Problem {
    let error = Error::new(Kind::InvalidInput, "this server only reads").help("use GET or HEAD");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, error)
}
