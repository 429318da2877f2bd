//! What a process tells over HTTP: that it lives (`/livez`), whether it serves (`/readyz`), and
//! what it has counted and measured (`/metrics`, for Prometheus; `docs/metrics.md`).
//!
//! A process lives if it answers at all; it serves from the moment that its role says so.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use basalt_runtime::{Connection, Network};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Whether this process serves: a fact of the process, as [`crate::role::report_ready`] is.
static READY: AtomicBool = AtomicBool::new(false);

/// What has been counted and measured, if it is recorded at all: of the process too.
static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Up to where durations are told apart, in seconds.
const BUCKETS_S: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// How often measured durations are put into their buckets, asked for or not: until then they wait
/// in memory, each by itself.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long one question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest request that is read.
const REQUEST_BYTES_MAX: usize = 4 << 10;

/// From now on `/readyz` says yes.
pub(crate) fn now_ready() {
    set_ready(true);
}

/// From now on `/readyz` says whether `is_ready`.
pub(crate) fn set_ready(is_ready: bool) {
    READY.store(is_ready, Ordering::Relaxed);
}

/// From now on what the role counts and measures is recorded. To be called once, in the runtime.
///
/// # Errors
/// Something else records already.
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

/// Answers at `address` for as long as the process lives.
///
/// # Errors
/// The address cannot be listened on.
pub(crate) async fn serve(network: &Network, address: SocketAddr) -> anyhow::Result<()> {
    let mut listener = network.listen(address).await.context("health")?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((connection, _)) => {
                    tokio::spawn(timeout(QUESTION_TIMEOUT, answer(connection)));
                }
                // Out of file descriptors, say: the next one may be taken.
                Err(_) => tokio::time::sleep(QUESTION_TIMEOUT).await,
            }
        }
    });
    Ok(())
}

/// Reads one request, answers it and closes. Only its first line matters.
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

/// The status and the body of the answer.
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
