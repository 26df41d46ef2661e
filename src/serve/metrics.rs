//! Counters in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the duration histogram, in milliseconds.
const BUCKETS_MS: [u32; 10] = [1, 2, 5, 10, 25, 50, 100, 250, 1000, 5000];

/// What a server counts. Labels come from fixed sets (routes, methods, statuses), so the number of series is bounded.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: Mutex<BTreeMap<(String, &'static str, u16), u64>>,
    routes: Mutex<BTreeMap<String, Route>>,
    in_flight: AtomicI64,
}

#[derive(Debug, Default)]
struct Route {
    buckets: [u64; BUCKETS_MS.len()],
    count: u64,
    seconds: f64,
    bytes: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic elsewhere must not end the counting.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that is being answered. It counts as such until it is dropped, however it ends.
pub(super) struct InFlight<'a>(&'a AtomicI64);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub(super) fn begin(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(&self.in_flight)
    }

    /// Counts a response whose head took `elapsed`.
    pub(super) fn response(&self, route: &str, method: &axum::http::Method, status: u16, elapsed: Duration) {
        let method = match method.as_str() {
            "GET" => "GET",
            "HEAD" => "HEAD",
            "OPTIONS" => "OPTIONS",
            _ => "other",
        };
        *lock(&self.requests).entry((route.to_owned(), method, status)).or_default() += 1;
        let mut routes = lock(&self.routes);
        let entry = routes.entry(route.to_owned()).or_default();
        entry.count += 1;
        entry.seconds += elapsed.as_secs_f64();
        for (bucket, bound) in entry.buckets.iter_mut().zip(BUCKETS_MS) {
            *bucket += u64::from(elapsed <= Duration::from_millis(bound.into()));
        }
    }

    /// Counts bytes of a body that went out.
    pub(super) fn bytes(&self, route: &str, bytes: u64) {
        lock(&self.routes).entry(route.to_owned()).or_default().bytes += bytes;
    }

    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "# TYPE nearside_build_info gauge")?;
        writeln!(out, "nearside_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))?;
        writeln!(out, "# HELP nearside_http_requests_in_flight Requests whose response has not begun.")?;
        writeln!(out, "# TYPE nearside_http_requests_in_flight gauge")?;
        writeln!(out, "nearside_http_requests_in_flight {}", self.in_flight.load(Ordering::Relaxed))?;
        writeln!(out, "# HELP nearside_http_requests_total Responses by route, method and status.")?;
        writeln!(out, "# TYPE nearside_http_requests_total counter")?;
        for ((route, method, status), count) in lock(&self.requests).iter() {
            let labels = format!("route=\"{route}\",method=\"{method}\",status=\"{status}\"");
            writeln!(out, "nearside_http_requests_total{{{labels}}} {count}")?;
        }
        let routes = lock(&self.routes);
        writeln!(out, "# HELP nearside_http_response_bytes_total Bytes of bodies handed to the network.")?;
        writeln!(out, "# TYPE nearside_http_response_bytes_total counter")?;
        for (route, entry) in routes.iter() {
            writeln!(out, "nearside_http_response_bytes_total{{route=\"{route}\"}} {}", entry.bytes)?;
        }
        writeln!(out, "# HELP nearside_http_response_start_seconds Time until a response begins.")?;
        writeln!(out, "# TYPE nearside_http_response_start_seconds histogram")?;
        for (route, entry) in routes.iter() {
            let name = "nearside_http_response_start_seconds";
            for (bucket, bound) in entry.buckets.iter().zip(BUCKETS_MS) {
                let le = f64::from(bound) / 1000.0;
                writeln!(out, "{name}_bucket{{route=\"{route}\",le=\"{le}\"}} {bucket}")?;
            }
            writeln!(out, "{name}_bucket{{route=\"{route}\",le=\"+Inf\"}} {}", entry.count)?;
            writeln!(out, "{name}_sum{{route=\"{route}\"}} {}", entry.seconds)?;
            writeln!(out, "{name}_count{{route=\"{route}\"}} {}", entry.count)?;
        }
        Ok(())
    }
}
