//! The HBase RPC of a master.
//!
//! Every master answers where tables and regions are, from its copy of the catalog. Only the active
//! master answers requests that change something. If a standby master rejects such a request,
//! clients look for the active master again.

mod locks;
mod namespaces;
mod sanity;
mod settings;
mod status;
mod switches;
mod tables;

use std::sync::Arc;

use basalt_cluster::meta::{self, MetaReader};
use basalt_cluster::{Catalog, Nodes};
use basalt_hbase_rpc::{
    Call, Exception, ExceptionKind, Handler, Reply, ServerOptions, Service, schema, znode,
};
use basalt_model::{ServerName, TableDescriptor};
use basalt_runtime::{Listener, Shutdown};
use basalt_zk::Client;
use bytes::Bytes;
use prost::Message;
use tokio::sync::watch;

use crate::procedure::{Nonce, SubmitError};
use crate::term::Term;

/// The handler of calls from HBase clients.
pub(crate) struct MasterRpc {
    server: ServerName,
    client: Client,
    nodes: Nodes,
    catalog: Catalog,
    meta: MetaReader,
    term: watch::Receiver<Option<Arc<Term>>>,
}

/// The result of a method.
type Answer = Result<Reply, Exception>;

// === impl MasterRpc ===

impl MasterRpc {
    pub(crate) fn new(
        server: ServerName,
        client: Client,
        nodes: Nodes,
        catalog: Catalog,
        term: watch::Receiver<Option<Arc<Term>>>,
    ) -> Self {
        let meta = MetaReader::new(catalog.clone());
        Self { server, client, nodes, catalog, meta, term }
    }

    /// The term in which this master is active.
    fn term(&self) -> Result<Arc<Term>, Exception> {
        let term = self.term.borrow().clone();
        term.filter(|term| !term.store.term().is_cancelled()).ok_or_else(|| not_active(self))
    }

    async fn master_service(&self, call: &Call) -> Answer {
        let term = self.term()?;
        match call.method.as_str() {
            "IsMasterRunning"
            | "IsMasterInMaintenanceMode"
            | "GetClusterStatus"
            | "getSecurityCapabilities"
            | "ListDecommissionedRegionServers" => self.status(&term, call).await,
            "CreateTable"
            | "DeleteTable"
            | "EnableTable"
            | "DisableTable"
            | "FlushTable"
            | "ModifyTable"
            | "AddColumn"
            | "ModifyColumn"
            | "DeleteColumn"
            | "truncateTable"
            | "TruncateTable"
            | "getProcedureResult"
            | "GetSchemaAlterStatus"
            | "GetTableDescriptors"
            | "GetTableNames"
            | "GetTableState"
            | "ListTableDescriptorsByNamespace"
            | "ListTableNamesByNamespace"
            | "ListTableDescriptorsByState"
            | "ListTableNamesByState" => self.tables(&term, call).await,
            "ListNamespaces"
            | "ListNamespaceDescriptors"
            | "GetNamespaceDescriptor"
            | "CreateNamespace"
            | "DeleteNamespace" => self.namespaces(&term, call).await,
            "GetLocks" | "GetProcedures" => locks::answer(&term, call),
            _ => switches::answer(&term, call).await,
        }
    }
}

impl Handler for MasterRpc {
    async fn handle(&self, call: Call) -> Answer {
        match call.caller.service {
            Service::Master => self.master_service(&call).await,
            Service::ClientMeta => self.meta.client_meta_service(&call),
            Service::Client if meta::is_for_meta(&call) => self.meta.client_service(&call).await,
            _ => Err(Exception::unknown_method(&call.method)),
        }
    }

    fn cluster_id(&self) -> Option<String> {
        Some(self.catalog.cluster_id()).filter(|id| !id.is_empty())
    }
}

/// Serves clients until `shutdown` is cancelled.
pub(crate) async fn serve(listener: Box<dyn Listener>, handler: MasterRpc, shutdown: Shutdown) {
    let services = [Service::Master, Service::ClientMeta, Service::Client];
    let options = ServerOptions::new(services);
    basalt_hbase_rpc::serve(listener, Arc::new(handler), options, shutdown).await;
}

/// The contents of a descriptor file as HBase's tools read it.
pub(crate) fn descriptor_file(descriptor: &TableDescriptor) -> Bytes {
    let mut contents = znode::MAGIC.to_vec();
    contents.extend(schema::table_to_message(descriptor).encode_to_vec());
    contents.into()
}

fn not_active(rpc: &MasterRpc) -> Exception {
    let message = format!("{} is not the active master", rpc.server);
    Exception::new(ExceptionKind::ServerNotRunningYet, message)
}

/// Decodes the request of `call`.
fn read<M: Message + Default>(call: &Call) -> Result<M, Exception> {
    M::decode(call.message.clone())
        .map_err(|error| Exception::bad_request(format!("{}: {error}", call.method)))
}

fn nonce(group: Option<u64>, number: Option<u64>) -> Option<Nonce> {
    Nonce { group: group.unwrap_or(0), number: number.unwrap_or(0) }.given()
}

// === impl Exception ===

impl From<SubmitError> for Exception {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Refused(exception) => exception,
            SubmitError::Deposed => {
                Self::new(ExceptionKind::ServerNotRunningYet, "another master is active")
            }
        }
    }
}
