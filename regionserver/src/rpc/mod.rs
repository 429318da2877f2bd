//! The HBase RPC of a region server: one file per verb.

mod admin;
mod decode;
mod exceptions;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod get;
mod multi;
mod mutate;
mod paging;
mod results;
mod scan;
mod transit;

use std::sync::Arc;

use basalt_cluster::meta::{self, MetaReader};
use basalt_hbase_rpc::{Call, Exception, ExceptionKind, Handler, Reply, Service};
use prost::Message;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::metrics::{RequestTimes, request_failed};
use crate::server::Server;
use scan::Scanners;
use transit::Purpose;

/// Answers the calls of clients.
pub(crate) struct Rpc {
    server: Arc<Server>,
    scanners: Scanners,
    meta: MetaReader,
    times: RequestTimes,
    /// Limits how many requests wait for a region in transition.
    waiting: Semaphore,
}

type Result<T> = std::result::Result<T, Exception>;

// === impl Rpc ===

impl Rpc {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        let meta = MetaReader::new(server.catalog.clone());
        Self {
            server,
            scanners: Scanners::default(),
            meta,
            times: RequestTimes::default(),
            waiting: Semaphore::new(transit::WAITING_MAX),
        }
    }

    async fn client_service(&self, call: Call) -> Result<Reply> {
        match call.method.as_str() {
            "Get" => self.get(call).await,
            "Mutate" => self.mutate(call).await,
            "Multi" => self.multi(call).await,
            "Scan" => self.scan(call).await,
            "ExecService" => Err(Exception::new(
                ExceptionKind::UnknownProtocol,
                "this region has no coprocessors: Basalt does not support them",
            )),
            method => Err(Exception::unknown_method(method)),
        }
    }
}

impl Handler for Rpc {
    async fn handle(&self, call: Call) -> Result<Reply> {
        match call.caller.service {
            Service::Client if meta::is_for_meta(&call) => self.meta.client_service(&call).await,
            Service::Client => {
                let began = Instant::now();
                let time = self.times.of(&call.method);
                let answer = self.client_service(call).await;
                time.record(began.elapsed().as_secs_f64());
                answer.inspect_err(|exception| request_failed(exception.class_name()))
            }
            Service::ClientMeta => self.meta.client_meta_service(&call),
            Service::Admin => self.admin_service(call).await,
            service => Err(Exception::new(
                ExceptionKind::UnknownService,
                format!("region servers do not provide {service}"),
            )),
        }
    }

    fn is_short(&self, call: &Call) -> bool {
        call.caller.service == Service::Client && matches!(&*call.method, "Get" | "Scan")
    }

    fn cluster_id(&self) -> Option<String> {
        Some(self.server.catalog.cluster_id())
    }
}

/// Decodes the request of a call.
fn request<T: Message + Default>(call: &Call) -> Result<T> {
    T::decode(call.message.clone()).map_err(|error| {
        Exception::bad_request(format!("the request of {} cannot be decoded: {error}", call.method))
    })
}
