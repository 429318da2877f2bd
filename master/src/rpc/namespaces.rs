//! Namespaces, which are nodes without data.

use std::sync::Arc;

use basalt_hbase_rpc::{Call, Exception, ExceptionKind, Reply, pb};
use basalt_model::TableName;
use basalt_zk::proto::ErrorCode;
use bytes::Bytes;

use super::{Answer, MasterRpc, read, sanity};
use crate::epoch_guarded_store;
use crate::error::CommitError;
use crate::term::Term;

// === impl MasterRpc ===

impl MasterRpc {
    pub(super) async fn namespaces(&self, term: &Arc<Term>, call: &Call) -> Answer {
        match call.method.as_str() {
            "ListNamespaces" => {
                let namespace_name = self.namespace_names().await?;
                Ok(Reply::new(&pb::ListNamespacesResponse { namespace_name }))
            }
            "ListNamespaceDescriptors" => {
                let names = self.namespace_names().await?;
                let namespace_descriptor = names.iter().map(|name| descriptor(name)).collect();
                Ok(Reply::new(&pb::ListNamespaceDescriptorsResponse { namespace_descriptor }))
            }
            "GetNamespaceDescriptor" => {
                let request: pb::GetNamespaceDescriptorRequest = read(call)?;
                let name = request.namespace_name;
                if !self.namespace_names().await?.contains(&name) {
                    return Err(Exception::new(ExceptionKind::NamespaceNotFound, name));
                }
                let namespace_descriptor = descriptor(&name);
                Ok(Reply::new(&pb::GetNamespaceDescriptorResponse { namespace_descriptor }))
            }
            "CreateNamespace" => {
                let request: pb::CreateNamespaceRequest = read(call)?;
                create(term, &request.namespace_descriptor).await?;
                // There is no procedure; the work is done. Clients treat an unknown procedure as
                // done.
                Ok(Reply::new(&pb::CreateNamespaceResponse { proc_id: Some(0) }))
            }
            "DeleteNamespace" => {
                let request: pb::DeleteNamespaceRequest = read(call)?;
                self.delete_namespace(term, &request.namespace_name).await?;
                Ok(Reply::new(&pb::DeleteNamespaceResponse { proc_id: Some(0) }))
            }
            method => Err(Exception::unknown_method(method)),
        }
    }

    async fn namespace_names(&self) -> Result<Vec<String>, Exception> {
        let children = self.client.get_children(&self.nodes.namespaces()).await;
        children.map(|(names, _)| names).map_err(try_again)
    }

    async fn delete_namespace(&self, term: &Arc<Term>, name: &str) -> Result<(), Exception> {
        // Keeps tables from being created in the namespace meanwhile.
        let _turn = term.submissions.lock().await;
        let tables = self.client.get_children(&self.nodes.tables()).await.map_err(try_again)?.0;
        let is_its = |table: &String| table.split_once(':').is_some_and(|(of, _)| of == name);
        if tables.iter().any(is_its) || name == "default" || name == "hbase" {
            let message = format!("namespace {name} is not empty or is built in");
            return Err(Exception::new(ExceptionKind::Constraint, message));
        }
        let path = term.store.nodes().namespace(name);
        match term.store.commit(vec![epoch_guarded_store::delete(path)]).await {
            Err(error) if error.is(0, ErrorCode::NoNode) => {
                Err(Exception::new(ExceptionKind::NamespaceNotFound, name))
            }
            outcome => outcome.map(|_| ()).map_err(not_committed),
        }
    }
}

async fn create(term: &Arc<Term>, namespace: &pb::NamespaceDescriptor) -> Result<(), Exception> {
    let name = String::from_utf8_lossy(&namespace.name).into_owned();
    // The same rules as for the namespace of a table name.
    TableName::new(&name, "t").map_err(Exception::bad_request)?;
    sanity::check_name_length("namespace", &name)?;
    sanity::check_namespace_settings(&namespace.configuration)?;
    let path = term.store.nodes().namespace(&name);
    match term.store.commit(vec![epoch_guarded_store::create(path, Bytes::new())]).await {
        Err(error) if error.is(0, ErrorCode::NodeExists) => {
            Err(Exception::new(ExceptionKind::NamespaceExist, name))
        }
        outcome => outcome.map(|_| ()).map_err(not_committed),
    }
}

fn descriptor(name: &str) -> pb::NamespaceDescriptor {
    let name = Bytes::copy_from_slice(name.as_bytes());
    pb::NamespaceDescriptor { name, configuration: Vec::new() }
}

fn not_committed(error: CommitError) -> Exception {
    match error {
        CommitError::Deposed => {
            Exception::new(ExceptionKind::ServerNotRunningYet, "another master is active")
        }
        error => Exception::new(ExceptionKind::PleaseHold, error.to_string()),
    }
}

fn try_again(error: basalt_zk::Error) -> Exception {
    Exception::new(ExceptionKind::PleaseHold, error.to_string())
}
