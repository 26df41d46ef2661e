//! Conditional requests and ranges (RFC 9110, sections 13 and 14), apart from any I/O, and bodies that stream.
//!
//! Of ranges, one `bytes` range is served. Where RFC 9110 leaves a choice: a request for several ranges, in another unit,
//! or that does not parse gets the whole representation with 200 ("A server MAY ignore the Range header field", 14.2). A
//! range that parses but lies outside gets 416. `Range` counts for GET only.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};

use super::problem::Problem;
use crate::error::{Error, Kind};

/// Bytes of a file that are read at once.
const PIECE: u64 = 1 << 20;

/// An entity tag: `"…"` if strong, `W/"…"` if weak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ETag {
    opaque: String,
    weak: bool,
}

impl ETag {
    /// A tag that changes with every byte.
    pub(super) fn strong(opaque: impl ToString) -> Self {
        ETag { opaque: opaque.to_string(), weak: false }
    }

    /// A tag that may stay the same where bytes change.
    pub(super) fn weak(opaque: impl ToString) -> Self {
        ETag { opaque: opaque.to_string(), weak: true }
    }

    fn header(&self) -> Option<HeaderValue> {
        let weak = if self.weak { "W/" } else { "" };
        HeaderValue::try_from(format!("{weak}\"{}\"", self.opaque)).ok()
    }

    /// RFC 9110, 8.8.3.2: strong comparison needs both tags strong, weak comparison the same opaque part only.
    fn matches(&self, tag: &str, strong: bool) -> bool {
        let (other_weak, quoted) = tag.strip_prefix("W/").map_or((false, tag), |rest| (true, rest));
        let opaque = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        opaque == Some(&self.opaque) && !(strong && (self.weak || other_weak))
    }

    fn matches_any(&self, list: &str, strong: bool) -> bool {
        list.trim() == "*" || list.split(',').any(|tag| self.matches(tag.trim(), strong))
    }
}

/// What to answer to a request for a representation of a known tag and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// 200 with all of it.
    Whole,
    /// 206 with these bytes.
    Part(Range<u64>),
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416.
    Unsatisfiable,
}

/// Evaluates the preconditions and the range of a request, in the order of RFC 9110, 13.2.2. No dates are sent, so
/// conditions on dates are ignored.
pub(super) fn decide(method: &Method, headers: &HeaderMap, etag: &ETag, size: u64) -> Decision {
    if header_list(headers, header::IF_MATCH).is_some_and(|list| !etag.matches_any(&list, true)) {
        return Decision::PreconditionFailed;
    }
    if header_list(headers, header::IF_NONE_MATCH).is_some_and(|list| etag.matches_any(&list, false)) {
        return Decision::NotModified;
    }
    if method != Method::GET {
        return Decision::Whole;
    }
    // 13.1.5: If-Range uses the strong comparison; a date never matches here.
    let current = match headers.get(header::IF_RANGE) {
        Some(value) => value.to_str().is_ok_and(|tag| etag.matches(tag.trim(), true)),
        None => true,
    };
    let mut ranges = headers.get_all(header::RANGE).iter();
    match (ranges.next(), ranges.next()) {
        (Some(range), None) if current => range.to_str().map_or(Decision::Whole, |range| single_range(range, size)),
        _ => Decision::Whole,
    }
}

/// All values of a header as one list, or `None` if it is absent. A value that is not text matches nothing.
fn header_list(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// RFC 9110, 14.1.2: `bytes=first-last`, `bytes=first-` or `bytes=-suffix`.
fn single_range(value: &str, size: u64) -> Decision {
    let Some((unit, set)) = value.split_once('=') else { return Decision::Whole };
    let Some((first, last)) = set.trim_matches([' ', '\t']).split_once('-') else { return Decision::Whole };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Decision::Whole;
    }
    // A number too large for u64 is a position past any end.
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (first, number(first), last, number(last)) {
        (_, Some(first), _, Some(last)) if first > last => Decision::Whole,
        (_, Some(first), _, Some(_)) | (_, Some(first), "", _) if first >= size => Decision::Unsatisfiable,
        (_, Some(first), _, Some(last)) => Decision::Part(first..last.saturating_add(1).min(size)),
        (_, Some(first), "", None) => Decision::Part(first..size),
        ("", _, _, Some(0)) => Decision::Unsatisfiable,
        ("", _, _, Some(_)) if size == 0 => Decision::Whole,
        ("", _, _, Some(suffix)) => Decision::Part(size.saturating_sub(suffix)..size),
        _ => Decision::Whole,
    }
}

/// The headers of a representation.
#[derive(Debug, Clone)]
pub(super) struct Representation {
    /// The tag; strong tags of immutable objects are their digests.
    pub(super) etag: ETag,
    /// The whole size in bytes.
    pub(super) size: u64,
    /// The media type.
    pub(super) content_type: &'static str,
    /// How long caches may keep it.
    pub(super) cache_control: &'static str,
}

/// What never changes: a year, and no proxy may recompress it, or the bytes would not be those of the digest.
pub(super) const IMMUTABLE: &str = "public, max-age=31536000, immutable, no-transform";
/// What is asked for again each time.
pub(super) const REVALIDATE: &str = "no-cache";

impl Representation {
    /// The response to `decision`, with `body` being the bytes of [`Representation::wanted`].
    pub(super) fn response(&self, decision: Decision, body: Body) -> Response {
        let (status, length, range) = match &decision {
            Decision::Whole => (StatusCode::OK, self.size, None),
            Decision::Part(range) => {
                let last = range.end.saturating_sub(1);
                let header = format!("bytes {}-{last}/{}", range.start, self.size);
                (StatusCode::PARTIAL_CONTENT, range.end - range.start, Some(header))
            }
            // 8.6: a length in a 304 is that of the 200; the router would add 0 if none stood here.
            Decision::NotModified => (StatusCode::NOT_MODIFIED, self.size, None),
            Decision::PreconditionFailed => {
                let error = Error::new(Kind::InvalidInput, "the ETag in If-Match is not the one of this resource");
                return Problem::new(StatusCode::PRECONDITION_FAILED, error).into_response();
            }
            Decision::Unsatisfiable => {
                let error = Error::new(Kind::InvalidInput, format!("the range is outside of {} bytes", self.size));
                let mut response = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, error).into_response();
                if let Ok(value) = HeaderValue::try_from(format!("bytes */{}", self.size)) {
                    response.headers_mut().insert(header::CONTENT_RANGE, value);
                }
                return response;
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(self.cache_control));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Some(etag) = self.etag.header() {
            headers.insert(header::ETAG, etag);
        }
        headers.insert(header::CONTENT_LENGTH, length.into());
        if decision != Decision::NotModified {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        if let Some(range) = range.and_then(|range| HeaderValue::try_from(range).ok()) {
            headers.insert(header::CONTENT_RANGE, range);
        }
        response
    }

    /// The bytes to read for `decision`, or `None` if the answer has no body.
    pub(super) fn wanted(&self, method: &Method, decision: &Decision) -> Option<Range<u64>> {
        match decision {
            _ if method == Method::HEAD => None,
            Decision::Whole => Some(0..self.size),
            Decision::Part(range) => Some(range.clone()),
            _ => None,
        }
        .filter(|range| !range.is_empty())
    }

    /// The response to a request for a small representation that is in memory.
    pub(super) fn respond_with(&self, method: &Method, headers: &HeaderMap, bytes: Bytes) -> Response {
        let decision = decide(method, headers, &self.etag, self.size);
        let body = match self.wanted(method, &decision) {
            Some(range) => {
                let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                Body::from(bytes.slice(index(range.start)..index(range.end)))
            }
            None => Body::empty(),
        };
        self.response(decision, body)
    }
}

/// The bytes `range` of an open file, piece by piece.
pub(super) fn file_pieces(file: File, range: Range<u64>) -> BoxStream<'static, std::io::Result<Bytes>> {
    futures_util::stream::try_unfold((file, range), |(mut file, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let read = move || {
            let want = (range.end - range.start).min(PIECE);
            let mut bytes = Vec::with_capacity(usize::try_from(want).unwrap_or_default());
            file.seek(SeekFrom::Start(range.start))?;
            (&mut file).take(want).read_to_end(&mut bytes)?;
            if bytes.len() as u64 != want {
                // The connection is cut rather than a short body passed off as whole.
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
            }
            Ok(Some((Bytes::from(bytes), (file, range.start + want..range.end))))
        };
        tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)?
    })
    .boxed()
}

/// A body of `pieces`, cut off when the next piece takes longer than `timeout`.
pub(super) fn stream<E>(pieces: impl Stream<Item = Result<Bytes, E>> + Send + 'static, timeout: Duration) -> Body
where
    E: std::error::Error + Send + Sync + 'static,
{
    let pieces = futures_util::stream::unfold(Some(pieces.boxed()), move |pieces| async move {
        let mut pieces = pieces?;
        match tokio::time::timeout(timeout, pieces.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(pieces))),
            Ok(Some(Err(error))) => {
                tracing::error!(target: "nearside::serve", %error, "reading failed in the middle of a body");
                Some((Err(axum::Error::new(error)), None))
            }
            Err(elapsed) => {
                tracing::error!(target: "nearside::serve", "the store stalled in the middle of a body");
                Some((Err(axum::Error::new(elapsed)), None))
            }
        }
    });
    Body::from_stream(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    #[test]
    fn ranges_as_rfc_9110_has_them() {
        for (value, size, expected) in [
            ("bytes=0-0", 10, Part(0..1)),
            ("bytes=0-9", 10, Part(0..10)),
            ("bytes=2-5", 10, Part(2..6)),
            ("bytes=5-99", 10, Part(5..10)),
            ("bytes=9-", 10, Part(9..10)),
            ("bytes=0-", 10, Part(0..10)),
            ("bytes=-1", 10, Part(9..10)),
            ("bytes=-10", 10, Part(0..10)),
            ("bytes=-99", 10, Part(0..10)),
            ("BYTES=1-2", 10, Part(1..3)),
            ("bytes= 1-2 ", 10, Part(1..3)),
            ("bytes=0-18446744073709551615", 10, Part(0..10)),
            ("bytes=0-99999999999999999999999", 10, Part(0..10)),
            ("bytes=-99999999999999999999999", 10, Part(0..10)),
            // Outside.
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-11", 10, Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=0-0", 0, Unsatisfiable),
            // Ignored: the whole.
            ("bytes=-5", 0, Whole),
            ("bytes=5-2", 10, Whole),
            ("bytes=0-1,3-4", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=--1", 10, Whole),
            ("bytes=1-2-3", 10, Whole),
            ("bytes 0-1", 10, Whole),
            ("items=0-1", 10, Whole),
            ("bytes=../../etc/passwd", 10, Whole),
            ("", 10, Whole),
        ] {
            let etag = ETag::strong("a");
            assert_eq!(decide(&Method::GET, &headers(&[("range", value)]), &etag, size), expected, "{value} of {size}");
            let head = decide(&Method::HEAD, &headers(&[("range", value)]), &etag, size);
            assert_eq!(head, Whole, "HEAD {value}");
        }
    }

    #[test]
    fn preconditions_as_rfc_9110_has_them() {
        let (strong, weak) = (ETag::strong("a"), ETag::weak("a"));
        type Pairs = &'static [(&'static str, &'static str)];
        let cases: &[(Pairs, &ETag, Decision)] = &[
            (&[("if-none-match", "\"a\"")], &strong, NotModified),
            (&[("if-none-match", "W/\"a\"")], &strong, NotModified),
            (&[("if-none-match", "\"b\", \"a\"")], &strong, NotModified),
            (&[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")], &strong, NotModified),
            (&[("if-none-match", "*")], &strong, NotModified),
            (&[("if-none-match", "\"b\"")], &strong, Whole),
            (&[("if-none-match", "a")], &strong, Whole),
            (&[("if-none-match", "../../a")], &strong, Whole),
            (&[("if-none-match", "\"a\"")], &weak, NotModified),
            (&[("if-none-match", "\"a\""), ("range", "bytes=0-0")], &strong, NotModified),
            (&[("if-none-match", "\"b\""), ("range", "bytes=0-0")], &strong, Part(0..1)),
            (&[("if-match", "\"a\"")], &strong, Whole),
            (&[("if-match", "*")], &strong, Whole),
            (&[("if-match", "\"b\"")], &strong, PreconditionFailed),
            (&[("if-match", "W/\"a\"")], &strong, PreconditionFailed),
            (&[("if-match", "\"a\"")], &weak, PreconditionFailed),
            (&[("if-range", "\"a\""), ("range", "bytes=0-0")], &strong, Part(0..1)),
            (&[("if-range", "\"b\""), ("range", "bytes=0-0")], &strong, Whole),
            (&[("if-range", "W/\"a\""), ("range", "bytes=0-0")], &strong, Whole),
            (&[("if-range", "\"a\""), ("range", "bytes=0-0")], &weak, Whole),
            (&[("if-range", "Sat, 21 Nov 2026 00:00:00 GMT"), ("range", "bytes=0-0")], &strong, Whole),
            (&[("if-range", "\"b\""), ("range", "bytes=99-")], &strong, Whole),
            (&[("range", "bytes=0-0"), ("range", "bytes=1-1")], &strong, Whole),
        ];
        for (pairs, etag, expected) in cases {
            assert_eq!(decide(&Method::GET, &headers(pairs), etag, 10), *expected, "{pairs:?} {etag:?}");
        }
    }

    proptest::proptest! {
        /// Whatever the header says, a part lies inside and is not empty.
        #[test]
        fn a_part_is_inside(value in "bytes=[0-9]{0,21}-[0-9]{0,21}|.{0,30}", size: u64) {
            if let Part(range) = single_range(&value, size) {
                proptest::prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
