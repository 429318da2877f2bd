//! Calls to the active NameNode.
//!
//! If there are several NameNodes, the one that answered last is asked first. If it is a standby or
//! does not answer, the next one is asked. A retried call keeps its id, and the NameNode remembers
//! its answer: so a rename or a create whose answer was lost is neither performed twice nor
//! rejected because it was already performed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use basalt_runtime::{Network, Seams};
use prost::Message;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tracing::{debug, trace};

use crate::config::HdfsConfig;
use crate::error::{Error, Result};
use crate::pb;
use crate::rpc::frame::{CallId, ClientId};
use crate::rpc::{Connection, ConnectionOptions, Protocol};
use crate::write::Wish;

/// The NameNodes of one nameservice; clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct NameNode {
    shared: Arc<NameNodeShared>,
}

#[derive(Debug)]
struct NameNodeShared {
    network: Network,
    servers: Vec<Arc<str>>,
    user: Arc<str>,
    client: ClientId,
    /// The name under which this client holds the lease of all files that it writes.
    client_name: Arc<str>,
    next_call: AtomicI32,
    /// The server that is asked first.
    active: AtomicUsize,
    /// The connection to each server; one list for each protocol.
    client_connections: Vec<Mutex<Option<Connection>>>,
    data_node_connections: Vec<Mutex<Option<Connection>>>,
    connect_timeout: Duration,
    call_timeout: Duration,
    call_deadline: Duration,
}

/// The first pause before a call is retried; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// `rwxr-xr-x` and `rw-r--r--`.
const DIRECTORY_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
/// The bit of `CreateFlag` that creates a file and rejects one that exists.
const CREATE_FLAG: u32 = 1;
/// The flag of `addBlock` that keeps a block off the DataNode on the caller's machine.
const NO_LOCAL_WRITE: u32 = 1;
/// The maximum number of entries of a listing, over all its parts.
const LISTING_MAX: usize = 10_000_000;

// === impl NameNode ===

impl NameNode {
    /// Makes no connection before the first call.
    ///
    /// # Errors
    /// [`Error::Settings`]: no NameNode is configured.
    pub(crate) fn new(seams: &Seams, config: &HdfsConfig) -> Result<Self> {
        if config.name_nodes.is_empty() {
            return Err(Error::Settings { reason: "no NameNode is configured".to_owned() });
        }
        let mut client = ClientId::default();
        let random = [seams.random.next_u64(), seams.random.next_u64()];
        client[..8].copy_from_slice(&random[0].to_be_bytes());
        client[8..].copy_from_slice(&random[1].to_be_bytes());
        let connections = || config.name_nodes.iter().map(|_| Mutex::default()).collect();
        let shared = NameNodeShared {
            network: seams.network.clone(),
            servers: config.name_nodes.iter().map(|server| server.as_str().into()).collect(),
            user: config.user.as_str().into(),
            client,
            client_name: format!("basalt-{:016x}{:016x}", random[0], random[1]).into(),
            next_call: AtomicI32::new(0),
            active: AtomicUsize::new(0),
            client_connections: connections(),
            data_node_connections: connections(),
            connect_timeout: config.connect_timeout,
            call_timeout: config.call_timeout,
            call_deadline: config.call_deadline,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The name under which this client holds its lease.
    pub(crate) fn client_name(&self) -> &Arc<str> {
        &self.shared.client_name
    }

    /// The locations of a file's blocks.
    pub(crate) async fn block_locations(&self, path: &str) -> Result<pb::LocatedBlocks> {
        let request = pb::GetBlockLocationsRequest {
            src: path.to_owned(),
            offset: 0,
            length: i64::MAX as u64,
        };
        let method = "getBlockLocations";
        let response: pb::GetBlockLocationsResponse = self.call(method, &request).await?;
        response.locations.ok_or_else(|| self.shared.missing(method))
    }

    /// Creates a file that must not exist, in a folder that must. Returns its id.
    pub(crate) async fn create(
        &self,
        path: &str,
        replication: u32,
        block_bytes: u64,
    ) -> Result<u64> {
        let request = pb::CreateRequest {
            src: path.to_owned(),
            masked: pb::Permission { mode: FILE_MODE },
            client_name: self.client_name().to_string(),
            create_flag: CREATE_FLAG,
            create_parent: false,
            replication,
            block_size: block_bytes,
        };
        let response: pb::CreateResponse = self.call("create", &request).await?;
        let file = response.file.ok_or_else(|| self.shared.missing("create"))?;
        Ok(file.file_id())
    }

    /// Begins the block after `previous`, on the DataNodes that `wish` prefers.
    pub(crate) async fn add_block(
        &self,
        path: &str,
        file_id: u64,
        previous: Option<pb::ExtendedBlock>,
        wish: &Wish,
    ) -> Result<pb::LocatedBlock> {
        let request = pb::AddBlockRequest {
            src: path.to_owned(),
            client_name: self.client_name().to_string(),
            previous,
            exclude_nodes: wish.excluded.clone(),
            file_id: Some(file_id),
            favored_nodes: wish.favored.iter().map(ToString::to_string).collect(),
            flags: if wish.avoids_own { vec![NO_LOCAL_WRITE] } else { Vec::new() },
        };
        let response: pb::AddBlockResponse = self.call("addBlock", &request).await?;
        Ok(response.block)
    }

    /// Abandons a block that was just begun.
    pub(crate) async fn abandon_block(
        &self,
        path: &str,
        file_id: u64,
        block: pb::ExtendedBlock,
    ) -> Result<()> {
        let request = pb::AbandonBlockRequest {
            block,
            src: path.to_owned(),
            holder: self.client_name().to_string(),
            file_id: Some(file_id),
        };
        let _: pb::VoidResponse = self.call("abandonBlock", &request).await?;
        Ok(())
    }

    /// Records durably that the last block of the file has at least `last_block_length` bytes.
    /// Fails unless this client still holds the lease of the file. A NameNode that has no recorded
    /// length treats the block as empty: if it restarts, and no DataNode has reported a replica
    /// when the lease is recovered, it removes the block (`FSNamesystem.internalReleaseLease`).
    pub(crate) async fn record_length(
        &self,
        path: &str,
        file_id: u64,
        last_block_length: u64,
    ) -> Result<()> {
        let request = pb::FsyncRequest {
            src: path.to_owned(),
            client: self.client_name().to_string(),
            last_block_length: Some(i64::try_from(last_block_length).unwrap_or(i64::MAX)),
            file_id: Some(file_id),
        };
        let _: pb::VoidResponse = self.call("fsync", &request).await?;
        Ok(())
    }

    /// Closes a file whose last block is `last`. Returns false if not all its replicas are known
    /// yet.
    pub(crate) async fn complete(
        &self,
        path: &str,
        file_id: u64,
        last: Option<pb::ExtendedBlock>,
    ) -> Result<bool> {
        let request = pb::CompleteRequest {
            src: path.to_owned(),
            client_name: self.client_name().to_string(),
            last,
            file_id: Some(file_id),
        };
        Ok(self.call::<pb::BoolResponse>("complete", &request).await?.result)
    }

    /// Renews the lease of all files that this client writes.
    pub(crate) async fn renew_lease(&self) -> Result<()> {
        let request = pb::RenewLeaseRequest { client_name: self.client_name().to_string() };
        let _: pb::VoidResponse = self.call("renewLease", &request).await?;
        Ok(())
    }

    /// Takes the lease of a file from its holder, and starts the file's recovery. Returns true if
    /// the file is already closed.
    pub(crate) async fn recover_lease(&self, path: &str) -> Result<bool> {
        let client_name = self.client_name().to_string();
        let request = pb::RecoverLeaseRequest { src: path.to_owned(), client_name };
        Ok(self.call::<pb::BoolResponse>("recoverLease", &request).await?.result)
    }

    /// Whether the file is closed, that is, has no writer.
    pub(crate) async fn is_file_closed(&self, path: &str) -> Result<bool> {
        let request = pb::IsFileClosedRequest { src: path.to_owned() };
        Ok(self.call::<pb::BoolResponse>("isFileClosed", &request).await?.result)
    }

    /// Moves a file or a folder to a path that must not exist.
    pub(crate) async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let request =
            pb::RenameRequest { src: from.to_owned(), dst: to.to_owned(), overwrite: false };
        let _: pb::VoidResponse = self.call("rename2", &request).await?;
        Ok(())
    }

    /// Deletes a file or a folder. Returns false if there was none.
    pub(crate) async fn delete(&self, path: &str, recursive: bool) -> Result<bool> {
        let request = pb::DeleteRequest { src: path.to_owned(), recursive };
        Ok(self.call::<pb::BoolResponse>("delete", &request).await?.result)
    }

    /// Creates a folder and its missing parents.
    pub(crate) async fn make_directories(&self, path: &str) -> Result<()> {
        let request = pb::MkdirsRequest {
            src: path.to_owned(),
            masked: pb::Permission { mode: DIRECTORY_MODE },
            create_parent: true,
        };
        let _: pb::BoolResponse = self.call("mkdirs", &request).await?;
        Ok(())
    }

    /// Like [`NameNode::make_directories`], but retries for no longer than one call may take.
    pub(crate) async fn make_directories_at_once(&self, path: &str) -> Result<()> {
        let request = pb::MkdirsRequest {
            src: path.to_owned(),
            masked: pb::Permission { mode: DIRECTORY_MODE },
            create_parent: true,
        };
        let (client, limit) = (Protocol::Client, self.shared.call_timeout);
        let _: pb::BoolResponse =
            self.shared.call_within(limit, client, "mkdirs", &request).await?;
        Ok(())
    }

    /// The entries of a folder, sorted by name; `None` if it is missing.
    pub(crate) async fn list(&self, path: &str) -> Result<Option<Vec<pb::FileStatus>>> {
        let mut request = pb::GetListingRequest {
            src: path.to_owned(),
            start_after: Default::default(),
            need_location: false,
        };
        let mut entries = Vec::new();
        loop {
            let response: pb::GetListingResponse = self.call("getListing", &request).await?;
            let Some(listing) = response.listing else {
                return Ok(None);
            };
            let last = listing.entries.last().map(|entry| entry.path.clone());
            entries.extend(listing.entries);
            match last {
                Some(last) if listing.remaining > 0 && entries.len() < LISTING_MAX => {
                    request.start_after = last;
                }
                _ => return Ok(Some(entries)),
            }
        }
    }

    /// The file or folder at `path`; `None` if it is missing.
    pub(crate) async fn file_info(&self, path: &str) -> Result<Option<pb::FileStatus>> {
        let request = pb::GetFileInfoRequest { src: path.to_owned() };
        let response: pb::GetFileInfoResponse = self.call("getFileInfo", &request).await?;
        Ok(response.file)
    }

    /// The DataNodes that the NameNode considers alive.
    pub(crate) async fn live_data_nodes(&self) -> Result<Vec<pb::DatanodeInfo>> {
        let request = pb::GetDatanodeReportRequest { r#type: 2 };
        let response: pb::GetDatanodeReportResponse =
            self.call("getDatanodeReport", &request).await?;
        Ok(response.nodes)
    }

    /// Reports the result of a block's recovery.
    pub(crate) async fn commit_block_synchronization(
        &self,
        request: &pb::CommitBlockSynchronizationRequest,
    ) -> Result<()> {
        let method = "commitBlockSynchronization";
        let _: pb::VoidResponse = self.shared.call(Protocol::DataNode, method, request).await?;
        Ok(())
    }

    async fn call<M: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Result<M> {
        self.shared.call(Protocol::Client, method, request).await
    }
}

// === impl NameNodeShared ===

impl NameNodeShared {
    /// Makes a call, and retries it until a NameNode has performed or rejected it, or
    /// `call_deadline` is over.
    async fn call<M: Message + Default>(
        &self,
        protocol: Protocol,
        method: &'static str,
        request: &impl Message,
    ) -> Result<M> {
        self.call_within(self.call_deadline, protocol, method, request).await
    }

    async fn call_within<M: Message + Default>(
        &self,
        limit: Duration,
        protocol: Protocol,
        method: &'static str,
        request: &impl Message,
    ) -> Result<M> {
        let deadline = Instant::now() + limit;
        let id = self.next_call.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let mut pause = PAUSE_MIN;
        for retry in 0.. {
            let active = self.active.load(Ordering::Relaxed) % self.servers.len();
            let left = deadline.saturating_duration_since(Instant::now());
            let call = CallId { id, retry };
            let error = match self.attempt(active, protocol, call, method, request, left).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !error.is_passing() || Instant::now() + pause >= deadline {
                return Err(error);
            }
            debug!(method, %error, "retrying a call to a NameNode");
            if error.is_of_this_server() {
                // Unless another call has already moved on to the next one.
                let next = (active + 1) % self.servers.len();
                let order = Ordering::Relaxed;
                let _ = self.active.compare_exchange(active, next, order, order);
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        unreachable!("the loop has no end")
    }

    async fn attempt<M: Message + Default>(
        &self,
        server: usize,
        protocol: Protocol,
        call: CallId,
        method: &'static str,
        request: &impl Message,
        left: Duration,
    ) -> Result<M> {
        let connection = self.connection(server, protocol).await?;
        let asked = Instant::now();
        let answer = connection.call(call, method, request, self.call_timeout.min(left)).await;
        trace!(method, took = ?asked.elapsed(), ok = answer.is_ok(), "called a NameNode");
        if let Err(Error::TimedOut { .. }) = &answer {
            // The machine may have failed silently; a new connection would show that.
            self.forget(server, protocol, &connection).await;
        }
        answer
    }

    async fn forget(&self, server: usize, protocol: Protocol, silent: &Connection) {
        if let Some(connection) = self.connections(protocol).get(server) {
            connection.lock().await.take_if(|open| open.is_same(silent));
        }
    }

    fn connections(&self, protocol: Protocol) -> &[Mutex<Option<Connection>>] {
        match protocol {
            Protocol::DataNode => &self.data_node_connections,
            _ => &self.client_connections,
        }
    }

    async fn connection(&self, index: usize, protocol: Protocol) -> Result<Connection> {
        let none = || Error::Settings { reason: "no NameNode is configured".to_owned() };
        let server = self.servers.get(index).ok_or_else(none)?;
        // The lock is held while connecting, which has a timeout: one connection is enough for all
        // calls.
        let mut connection = self.connections(protocol).get(index).ok_or_else(none)?.lock().await;
        if let Some(open) = connection.as_ref().filter(|open| !open.is_failed()) {
            return Ok(open.clone());
        }
        let options = ConnectionOptions {
            protocol,
            user: Arc::clone(&self.user),
            client: self.client,
            connect_timeout: self.connect_timeout,
            write_timeout: self.call_timeout,
        };
        let open = Connection::open(&self.network, Arc::clone(server), &options).await?;
        Ok(connection.insert(open).clone())
    }

    fn missing(&self, method: &'static str) -> Error {
        let active = self.active.load(Ordering::Relaxed) % self.servers.len();
        let server = self.servers.get(active).cloned().unwrap_or_default();
        Error::BadAnswer { server, defect: crate::Defect::CutOff { what: method } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The field numbers are those of Hadoop's ClientNamenodeProtocol.proto and hdfs.proto.
    #[test]
    fn where_a_block_is_wished_is_written_as_hadoop_reads_it() {
        let request = pb::AddBlockRequest {
            src: "/a".to_owned(),
            client_name: "c".to_owned(),
            favored_nodes: vec!["n:1".to_owned()],
            flags: vec![NO_LOCAL_WRITE],
            ..Default::default()
        };
        assert_eq!(request.encode_to_vec(), b"\x0a\x02/a\x12\x01c\x32\x03n:1\x38\x01");
        let node = pb::DatanodeInfo { admin_state: Some(2), ..Default::default() };
        assert!(node.encode_to_vec().ends_with(b"\x50\x02"));
        // An unknown state is just a number too.
        let state =
            pb::DatanodeInfo::decode(&[&node.encode_to_vec()[..], b"\x50\x63"].concat()[..]);
        assert_eq!(state.unwrap().admin_state(), 99);
    }
}
