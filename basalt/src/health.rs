//! The HTTP endpoints of a process: whether it is alive (`/livez`), whether it serves (`/readyz`),
//! and its counters and measurements (`/metrics`, for Prometheus; `docs/metrics.md`).
//!
//! A process is alive if it answers at all. It serves from the moment that its role reports it.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use basalt_runtime::{Connection, Network};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Whether this process serves. It is global, as [`crate::role::report_ready`] is.
static READY: AtomicBool = AtomicBool::new(false);

/// The recorded metrics, if they are recorded. Global, too.
static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// The upper bounds of the histogram buckets for durations, in seconds.
const BUCKETS_S: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// How often measured durations are put into their buckets, whether or not the metrics are read.
/// Until then each one uses memory by itself.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// The timeout of one request.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// The maximum size of a request.
const REQUEST_BYTES_MAX: usize = 4 << 10;

/// From now on `/readyz` reports that the process is ready.
pub(crate) fn now_ready() {
    set_ready(true);
}

/// From now on `/readyz` reports `is_ready`.
pub(crate) fn set_ready(is_ready: bool) {
    READY.store(is_ready, Ordering::Relaxed);
}

/// Starts to record the role's metrics. To be called once, in the runtime.
///
/// # Errors
/// Another recorder is already set.
pub(crate) fn record_metrics() -> anyhow::Result<()> {
    let recorder = PrometheusBuilder::new().set_buckets(&BUCKETS_S)?.build_recorder();
    let handle = METRICS.get_or_init(|| recorder.handle());
    metrics::set_global_recorder(recorder).context("metrics")?;
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            handle.run_upkeep();
        }
    });
    Ok(())
}

/// Serves requests at `address` until the process ends.
///
/// # Errors
/// The server cannot listen on the address.
pub(crate) async fn serve(network: &Network, address: SocketAddr) -> anyhow::Result<()> {
    let mut listener = network.listen(address).await.context("health")?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((connection, _)) => {
                    tokio::spawn(timeout(QUESTION_TIMEOUT, answer(connection)));
                }
                // For example, the process is out of file descriptors. The next connection may be
                // accepted.
                Err(_) => tokio::time::sleep(QUESTION_TIMEOUT).await,
            }
        }
    });
    Ok(())
}

/// Reads one request, answers it and closes the connection. Only the first line of the request
/// matters.
async fn answer(mut connection: Connection) -> std::io::Result<()> {
    let mut request = Vec::with_capacity(REQUEST_BYTES_MAX);
    while !request.ends_with(b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        if connection.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let (status, body) = reply(&request, READY.load(Ordering::Relaxed));
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(answer.as_bytes()).await?;
    connection.shutdown().await
}

/// The status and the body of the response.
fn reply(request: &[u8], is_ready: bool) -> (&'static str, String) {
    let asks_for = |path: &str| request.starts_with(format!("GET {path} ").as_bytes());
    let status = if asks_for("/livez") || (asks_for("/readyz") && is_ready) {
        "200 OK"
    } else if asks_for("/readyz") {
        "503 Service Unavailable"
    } else if asks_for("/metrics") {
        return ("200 OK", METRICS.get().map(PrometheusHandle::render).unwrap_or_default());
    } else {
        "404 Not Found"
    };
    (status, String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_before_it_serves() {
        let status = |path: &str, is_ready| {
            reply(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes(), is_ready).0
        };
        assert_eq!(status("/livez", false), "200 OK");
        assert_eq!(status("/readyz", false), "503 Service Unavailable");
        assert_eq!(status("/readyz", true), "200 OK");
        assert_eq!(status("/readyzz", true), "404 Not Found");
        assert_eq!(reply(b"", true).0, "404 Not Found");
    }

    #[tokio::test]
    async fn measurements_are_served() {
        record_metrics().unwrap();
        metrics::histogram!("test_seconds", "of" => "this").record(0.003);
        let (status, body) = reply(b"GET /metrics HTTP/1.1\r\n\r\n", true);
        assert_eq!(status, "200 OK");
        let line = "test_seconds_bucket{of=\"this\",le=\"0.005\"} 1";
        assert!(body.contains(line), "{body}");
    }
}
