//! Decoders of the answers of HDFS servers, for the fuzz targets. Compiled only with `--cfg
//! fuzzing`.

use bytes::{Bytes, BytesMut};
use prost::Message;

use crate::HdfsConfig;
use crate::config::parse_properties;
use crate::pb;
use crate::rpc::frame::{decode_answer, take_frame};
use crate::transfer::packet::{Checksums, PacketHeader, encode_packet, take_packet};
use crate::wire::{put_delimited, split_delimited, take_delimited};

/// The maximum length of an answer in a fuzz target, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 16;

/// Passes `bytes` to the decoder for the answers of one kind of server.
pub fn decode_part(kind: u8, bytes: &[u8]) {
    let mut input = BytesMut::from(bytes);
    match kind % 5 {
        0 => {
            while let Ok(Some(frame)) = take_frame(&mut input, ANSWER_BYTES_MAX) {
                if let Ok(Ok(message)) = decode_answer(frame).map(|answer| answer.result) {
                    decode_message(kind / 5, message);
                }
            }
        }
        1 => packets(&mut input, kind / 5),
        2 => {
            let taken = |input: &mut _| {
                take_delimited::<pb::BlockOpResponse>("response", ANSWER_BYTES_MAX, input)
            };
            while let Ok(Some(response)) = taken(&mut input) {
                // A decoded message that is encoded again must decode to the same message.
                let mut again = BytesMut::new();
                put_delimited(&response, &mut again);
                assert_eq!(taken(&mut again), Ok(Some(response)));
            }
        }
        3 => drop(crate::web::parse(bytes)),
        _ => {
            let text = String::from_utf8_lossy(bytes);
            let properties = parse_properties(&text).into_iter().collect();
            for nameservice in [None, Some("prod")] {
                drop(HdfsConfig::from_properties(&properties, nameservice));
            }
        }
    }
}

fn packets(input: &mut BytesMut, kind: u8) {
    let checksum = pb::Checksum { r#type: u32::from(kind % 4), bytes_per_checksum: 512 };
    let checksums = Checksums::new(&checksum);
    while let Ok(Some(packet)) = take_packet(input) {
        let Ok(checksums) = checksums else { continue };
        if packet.verify(checksums).is_ok() && matches!(checksums, Checksums::Crc32c(512)) {
            let mut again = BytesMut::from(&encode_packet(packet.header, &packet.data)[..]);
            assert_eq!(take_packet(&mut again), Ok(Some(packet)));
        }
    }
}

fn decode_message(kind: u8, mut message: Bytes) {
    fn one<M: Message + Default>(message: &mut Bytes) {
        drop(split_delimited::<M>("answer", message));
    }
    match kind % 8 {
        0 => one::<pb::GetBlockLocationsResponse>(&mut message),
        1 => one::<pb::CreateResponse>(&mut message),
        2 => one::<pb::AddBlockResponse>(&mut message),
        3 => one::<pb::GetListingResponse>(&mut message),
        4 => one::<pb::GetFileInfoResponse>(&mut message),
        5 => one::<pb::GetDatanodeReportResponse>(&mut message),
        6 => one::<pb::InitReplicaRecoveryResponse>(&mut message),
        _ => one::<pb::UpdateReplicaUnderRecoveryResponse>(&mut message),
    }
}

/// Initial inputs: one for each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut response = BytesMut::new();
    put_delimited(&pb::BlockOpResponse::default(), &mut response);
    let header = PacketHeader { offset: 512, sequence: 1, is_last: false, sync: false };
    let mut answer = BytesMut::from(&[0, 0, 0, 0][..]);
    put_delimited(&pb::RpcResponseHeader::default(), &mut answer);
    put_delimited(&pb::GetBlockLocationsResponse::default(), &mut answer);
    let length = (answer.len() - 4) as u32;
    answer[..4].copy_from_slice(&length.to_be_bytes());
    let page = b"HTTP/1.1 200 OK\r\n\r\n{\"properties\":[{\"key\":\"a\",\"value\":\"1\"}]}";
    let site = b"<property><name>fs.defaultFS</name><value>hdfs://prod</value></property>\
                 <property><name>dfs.ha.namenodes.prod</name><value>a,b</value></property>";
    vec![
        [&[0], &answer[..]].concat(),
        // CRC-32C is kind 2 of checksums: 1 + 5 * 2.
        [&[11], &encode_packet(header, b"data")[..]].concat(),
        [&[2], &response[..]].concat(),
        [&[3], &page[..]].concat(),
        [&[4], &site[..]].concat(),
    ]
}
