//! The znodes that clients read: their writer, a magic prefix, then a message.
//!
//! ```text
//! [ 0xFF | i32 length | writer's id, 8 bytes ]
//! "PBUF" | message
//! ```
//! HBase writes the first part (its `ZKMetadata`), and some clients require it. HBase itself reads
//! data with or without it, and so does Basalt. A file has only the second part.

use basalt_model::ServerName;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::{Error, Result, frame, pb};

/// The magic prefix of a message.
pub const MAGIC: &[u8; 4] = b"PBUF";
/// The znode of the cluster id, below the cluster's root.
pub const CLUSTER_ID: &str = "hbaseid";
/// The znode of the active master, below the cluster's root.
pub const MASTER: &str = "master";
/// The znode of the server of the meta table, below the cluster's root. Those of further replicas
/// end in `-1`, `-2`.
pub const META_SERVER: &str = "meta-region-server";

/// The RPC version that servers write together with their names.
const RPC_VERSION: u32 = 0;
/// The first byte of the writer's id.
const WRITER_MAGIC: u8 = 0xff;
/// The bytes after a writer's id, which HBase uses to distinguish writes.
const WRITER_SALT: [u8; 8] = [0; 8];

/// Encodes `data` as `writer` stores it in a znode.
pub fn written_by(writer: &ServerName, data: &[u8]) -> Bytes {
    let writer = writer.to_string();
    let length = writer.len() + WRITER_SALT.len();
    let mut written = BytesMut::with_capacity(1 + 4 + length + data.len());
    written.put_u8(WRITER_MAGIC);
    written.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    written.put_slice(writer.as_bytes());
    written.put_slice(&WRITER_SALT);
    written.put_slice(data);
    written.freeze()
}

/// The data of [`CLUSTER_ID`], and the contents of the file of that name at the storage root.
pub fn encode_cluster_id(cluster_id: &str) -> Bytes {
    let cluster_id = cluster_id.to_owned();
    marked(&pb::ClusterId { cluster_id })
}

/// Decodes the data of [`encode_cluster_id`].
///
/// # Errors
/// [`Error::BadFrame`] without the prefix; [`Error::BadMessage`].
pub fn decode_cluster_id(data: Bytes) -> Result<String> {
    let message: pb::ClusterId = unmarked(data, "ClusterId")?;
    Ok(message.cluster_id)
}

/// The data of [`MASTER`].
pub fn encode_master(server: &ServerName, web_port: Option<u16>) -> Bytes {
    marked(&pb::Master {
        master: server_to_message(server),
        rpc_version: Some(RPC_VERSION),
        info_port: web_port.map(u32::from),
    })
}

/// Decodes the data of [`encode_master`].
///
/// # Errors
/// As [`decode_cluster_id`]; [`Error::BadField`] for an invalid server name.
pub fn decode_master(data: Bytes) -> Result<ServerName> {
    let message: pb::Master = unmarked(data, "Master")?;
    server_from_message(&message.master)
}

/// The data of [`META_SERVER`].
pub fn encode_meta_server(server: &ServerName) -> Bytes {
    marked(&pb::MetaRegionServer {
        server: server_to_message(server),
        rpc_version: Some(RPC_VERSION),
        state: Some(pb::region_state::State::Open.into()),
    })
}

/// Decodes the data of [`encode_meta_server`]. Returns `None` if the meta table is not open there.
///
/// # Errors
/// As [`decode_master`].
pub fn decode_meta_server(data: Bytes) -> Result<Option<ServerName>> {
    let message: pb::MetaRegionServer = unmarked(data, "MetaRegionServer")?;
    let open = pb::region_state::State::Open;
    if message.state.is_some_and(|state| state != open as i32) {
        return Ok(None);
    }
    server_from_message(&message.server).map(Some)
}

/// Encodes a server's name for messages.
pub fn server_to_message(server: &ServerName) -> pb::ServerName {
    pb::ServerName {
        host_name: server.host.clone(),
        port: Some(server.port.into()),
        start_code: Some(server.start_code),
    }
}

/// Decodes a server's name from a message.
///
/// # Errors
/// [`Error::BadField`] without a host or with an invalid port.
pub fn server_from_message(server: &pb::ServerName) -> Result<ServerName> {
    if server.host_name.is_empty() {
        return Err(Error::bad_field("ServerName.host_name", "it is empty"));
    }
    let port = u16::try_from(server.port()).map_err(|_| {
        let reason = format!("{} is above 65535", server.port());
        Error::bad_field("ServerName.port", reason)
    })?;
    Ok(ServerName { host: server.host_name.clone(), port, start_code: server.start_code() })
}

/// Encodes a message with the magic prefix.
pub(crate) fn marked(message: &impl Message) -> Bytes {
    let mut data = MAGIC.to_vec();
    data.extend(message.encode_to_vec());
    data.into()
}

/// Decodes a message with the magic prefix.
pub(crate) fn unmarked<M: Message + Default>(mut data: Bytes, name: &'static str) -> Result<M> {
    const NO_MARK: Error = Error::BadFrame { reason: "data that does not begin with PBUF" };
    if data.first() == Some(&WRITER_MAGIC) {
        data.advance(1);
        let length = data.try_get_u32().map_err(|_| NO_MARK)? as usize;
        if length > data.len() {
            return Err(NO_MARK);
        }
        data.advance(length);
    }
    if !data.starts_with(MAGIC) {
        return Err(NO_MARK);
    }
    data.advance(MAGIC.len());
    frame::decode_message(data, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn server() -> ServerName {
        "rs-0,16020,1700000000000".parse().unwrap()
    }

    #[test]
    fn data_reads_as_it_was_written() {
        assert_eq!(decode_cluster_id(encode_cluster_id("c1")).unwrap(), "c1");
        assert_eq!(decode_master(encode_master(&server(), Some(16010))).unwrap(), server());
        assert_eq!(decode_meta_server(encode_meta_server(&server())).unwrap(), Some(server()));
    }

    #[test]
    fn data_names_its_writer_as_hbase_has_it() {
        let data = written_by(&server(), &encode_cluster_id("c1"));
        // As gohbase and asynchbase read it; they accept nothing else.
        assert_eq!(data[0], 0xff);
        let length = u32::from_be_bytes(data[1..5].try_into().unwrap()) as usize;
        let (id, rest) = data[5..].split_at(length);
        assert_eq!(&id[..length - 8], server().to_string().as_bytes());
        assert_eq!(rest, b"PBUF\x0a\x02c1");
        assert_eq!(decode_cluster_id(data).unwrap(), "c1");
        let master = encode_master(&server(), None);
        assert_eq!(decode_master(written_by(&server(), &master)).unwrap(), server());
        let meta_server = encode_meta_server(&server());
        let read = decode_meta_server(written_by(&server(), &meta_server)).unwrap();
        assert_eq!(read, Some(server()));
    }

    #[test]
    fn the_id_of_a_java_writer_is_skipped() {
        let mut data = b"\xff\x00\x00\x00\x14master:16000".to_vec();
        data.extend([0; 8]);
        data.extend(b"PBUF\x0a\x02c1");
        assert_eq!(decode_cluster_id(data.into()).unwrap(), "c1");
    }

    #[test]
    fn a_meta_table_that_is_not_open_has_no_server() {
        let mut message: pb::MetaRegionServer =
            unmarked(encode_meta_server(&server()), "MetaRegionServer").unwrap();
        message.state = Some(pb::region_state::State::Opening.into());
        assert_eq!(decode_meta_server(marked(&message)).unwrap(), None);
        message.state = None;
        assert_eq!(decode_meta_server(marked(&message)).unwrap(), Some(server()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..60)) {
            let _ = decode_meta_server(Bytes::from(bytes.clone()));
            let _ = decode_master(Bytes::from([b"\xff", &bytes[..]].concat()));
            let _ = decode_master(Bytes::from([b"PBUF", &bytes[..]].concat()));
        }
    }
}
