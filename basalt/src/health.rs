//! What the kubelet asks a container: does it live (`/livez`), does it serve (`/readyz`).
//!
//! A process lives if it answers at all; it serves from the moment that its role says so.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use basalt_runtime::{Connection, Network};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Whether this process serves: a fact of the process, as [`crate::role::tell_ready`] is.
static READY: AtomicBool = AtomicBool::new(false);

/// How long one question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest request that is read.
const REQUEST_BYTES_MAX: usize = 4 << 10;

/// From now on `/readyz` says yes.
pub(crate) fn now_ready() {
    READY.store(true, Ordering::Relaxed);
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
    let status = status(&request, READY.load(Ordering::Relaxed));
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    connection.write_all(answer.as_bytes()).await?;
    connection.shutdown().await
}

fn status(request: &[u8], is_ready: bool) -> &'static str {
    let asks_for = |path: &str| request.starts_with(format!("GET {path} ").as_bytes());
    if asks_for("/livez") || (asks_for("/readyz") && is_ready) {
        "200 OK"
    } else if asks_for("/readyz") {
        "503 Service Unavailable"
    } else {
        "404 Not Found"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_before_it_serves() {
        assert_eq!(status(b"GET /livez HTTP/1.1\r\n\r\n", false), "200 OK");
        assert_eq!(status(b"GET /readyz HTTP/1.1\r\n\r\n", false), "503 Service Unavailable");
        assert_eq!(status(b"GET /readyz HTTP/1.1\r\n\r\n", true), "200 OK");
        assert_eq!(status(b"GET /readyzz HTTP/1.1\r\n\r\n", true), "404 Not Found");
        assert_eq!(status(b"", true), "404 Not Found");
    }
}
