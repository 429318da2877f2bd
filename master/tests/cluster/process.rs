//! Processes that can be killed. Each is a runtime of its own. Dropping it closes its sockets
//! without a message, as the kernel does for a killed process.

use std::net::TcpListener;

use tokio::runtime::{Builder, Runtime};

/// A task in a runtime of its own.
pub(crate) struct Process(Option<Runtime>);

// === impl Process ===

impl Process {
    pub(crate) fn start(work: impl Future<Output = ()> + Send + 'static) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(work);
        Self(Some(runtime))
    }

    /// Like `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
