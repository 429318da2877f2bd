//! The limits of a gRPC port: on requests, on the memory that they hold, and on their time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Request;
use tonic::transport::Server;
use tower::layer::util::{Identity, Stack};
use tower::{Layer, Service};

/// The maximum number of requests in progress on one connection.
const CONNECTION_REQUESTS_MAX: u32 = 256;
/// The maximum number of bytes that the incomplete requests of a port hold together.
const UNFINISHED_BYTES_MAX: usize = 256 << 20;
/// How long a request may take to arrive completely.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The interval between keep-alive pings to a peer.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long a peer may take to answer a ping.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// A server with the limits of a port, for services whose requests are single messages.
pub fn server() -> Server<Stack<BoundedRequests, Identity>> {
    Server::builder()
        .max_concurrent_streams(CONNECTION_REQUESTS_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .layer(BoundedRequests::new(UNFINISHED_BYTES_MAX))
}

/// Limits the memory that all incomplete requests of a port hold together.
#[derive(Clone, Debug)]
pub struct BoundedRequests(Arc<Unfinished>);

/// See [`BoundedRequests`].
#[derive(Clone, Debug)]
pub struct Bounded<S> {
    service: S,
    unfinished: Arc<Unfinished>,
}

#[derive(Debug)]
struct Unfinished {
    bytes: AtomicUsize,
    bytes_max: usize,
}

/// The body of a request. Its bytes count as unfinished until it has been read and dropped.
struct CountedBody {
    body: Body,
    unfinished: Arc<Unfinished>,
    counted: usize,
    /// When the request has taken too long. The time starts with the first wait for data.
    deadline: Option<Pin<Box<Sleep>>>,
}

// === impl BoundedRequests ===

impl BoundedRequests {
    fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Unfinished { bytes: AtomicUsize::new(0), bytes_max }))
    }
}

impl<S> Layer<S> for BoundedRequests {
    type Service = Bounded<S>;

    fn layer(&self, service: S) -> Bounded<S> {
        Bounded { service, unfinished: Arc::clone(&self.0) }
    }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Bounded<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let unfinished = Arc::clone(&self.unfinished);
        self.service.call(
            request.map(|body| {
                Body::new(CountedBody { body, unfinished, counted: 0, deadline: None })
            }),
        )
    }
}

// === impl CountedBody ===

impl CountedBody {
    fn count(&mut self, bytes: usize) -> Result<(), Status> {
        self.counted += bytes;
        let before = self.unfinished.bytes.fetch_add(bytes, Ordering::AcqRel);
        if before + bytes > self.unfinished.bytes_max {
            let held = self.unfinished.bytes_max;
            let message = format!("incomplete requests hold more than {held} bytes");
            return Err(Status::resource_exhausted(message));
        }
        Ok(())
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                Poll::Ready(Some(self.count(bytes).map(|()| frame)))
            }
            Poll::Pending => {
                let deadline =
                    self.deadline.get_or_insert_with(|| Box::pin(sleep(REQUEST_TIMEOUT)));
                match deadline.as_mut().poll(context) {
                    Poll::Ready(()) => {
                        let message = format!("incomplete request after {REQUEST_TIMEOUT:?}");
                        Poll::Ready(Some(Err(Status::deadline_exceeded(message))))
                    }
                    Poll::Pending => Poll::Pending,
                }
            }
            ended => ended,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        self.unfinished.bytes.fetch_sub(self.counted, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// A body that yields one part and then stays pending forever.
    struct Half(Option<Bytes>);

    impl HttpBody for Half {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            match self.0.take() {
                Some(part) => Poll::Ready(Some(Ok(Frame::data(part)))),
                None => Poll::Pending,
            }
        }
    }

    fn counted(unfinished: &Arc<Unfinished>, bytes: usize) -> CountedBody {
        let body = Body::new(Half(Some(vec![0; bytes].into())));
        CountedBody { body, unfinished: Arc::clone(unfinished), counted: 0, deadline: None }
    }

    async fn next(body: &mut CountedBody) -> Result<Frame<Bytes>, Status> {
        poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_are_not_whole_are_bounded_in_bytes_and_time() {
        let BoundedRequests(unfinished) = BoundedRequests::new(100);
        let (mut first, mut second) = (counted(&unfinished, 60), counted(&unfinished, 60));
        next(&mut first).await.unwrap();
        let refused = next(&mut second).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        drop(second);
        let late = next(&mut first).await.unwrap_err();
        assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
        drop(first);
        assert_eq!(unfinished.bytes.load(Ordering::Acquire), 0);
    }
}
