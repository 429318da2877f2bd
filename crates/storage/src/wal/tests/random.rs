//! Decoders on random input.

use std::path::Path;

use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};
use proptest::prelude::*;

use super::*;
use crate::wal::edit::{RECORD_PREFIX_BYTES, RecordIdentity, body_length, check_record};
use crate::wal::header::{BatchHeader, FILE_HEADER_BYTES, FileChecksum, FileHeader};
use crate::wal::split_index::{SplitIndex, index_path, write_split_index};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn file_header() -> (Vec<u8>, FileChecksum) {
    let header = FileHeader {
        cluster_id: "c".into(),
        server: server(),
        boot_id: "b".into(),
        number: 1,
        created_ms: 5,
    };
    let (bytes, checksum) = header.encode().unwrap();
    (bytes.to_vec(), checksum)
}

proptest! {
    #[test]
    fn random_bytes_never_panic_a_decoder(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        let bytes = Bytes::from(bytes);
        let _ = Edit::decode(&bytes);
        let _ = RecordIdentity::decode(&bytes);
        let _ = FileHeader::decode(&bytes);
        let _ = BatchHeader::decode(&bytes, FileChecksum(1), 2);
    }

    /// With correct checksums, random lengths and counts reach the inner decoders.
    #[test]
    fn random_records_with_right_checksums_never_panic(
        body in prop::collection::vec(any::<u8>(), 45..300),
        records in 0_u32..4,
        flags in 0_u8..3,
        cells in 0_u32..4,
    ) {
        let (mut bytes, checksum) = file_header();
        let mut body = body;
        body[32] = flags;
        let count_at = if flags == 1 { 49 } else { 33 };
        if let Some(count) = body.get_mut(count_at..count_at + 4) {
            count.copy_from_slice(&cells.to_be_bytes());
        }
        let length = (body.len() as u32).to_be_bytes();
        let header = BatchHeader {
            offset: FILE_HEADER_BYTES as u64,
            synced: FILE_HEADER_BYTES as u64,
            records_bytes: 8 + body.len() as u64,
            records,
        };
        bytes.extend_from_slice(&header.encode(checksum));
        bytes.extend_from_slice(&length);
        bytes.extend_from_slice(&crc32c_append(crc32c(&length), &body).to_be_bytes());
        bytes.extend_from_slice(&body);
        runtime().block_on(async {
            let (files, path) = (disk_with(&bytes).await, Path::new("/log"));
            let sealed_length = bytes.len() as u64;
            let mut reader = WalReader::open(&files, path, sealed_length).await.unwrap();
            let _ = read_all(&mut reader).await;
            let _ = write_split_index(&files, path, sealed_length).await;
            if let Ok(index) = SplitIndex::open(&files, Path::new("/log"), &Arc::default()).await {
                let _ = index.part(region(1)).await;
            }
        });
    }

    #[test]
    fn random_indexes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        runtime().block_on(async {
            let files = disk_with(&file_header().0).await;
            let mut index = b"BsltPRT\n\0\x01".to_vec();
            index.extend_from_slice(&bytes);
            let path = index_path(Path::new("/log"));
            files.write_whole(&path, index.into()).await.unwrap();
            assert!(SplitIndex::open(&files, Path::new("/log"), &Arc::default()).await.is_err());
        });
    }
}

#[test]
fn an_edit_is_decoded_as_it_was_encoded() {
    for sequence_id in 0..20 {
        let edit = edit(1, sequence_id, sequence_id as usize * 100);
        let mut record = bytes::BytesMut::new();
        encode(&edit).put(edit.sequence_id, &mut record);
        assert_eq!(record.len(), encode(&edit).record_bytes());
        let record = record.freeze();
        let (prefix, body) = (record[..8].try_into().unwrap(), record.slice(8..));
        check_record(&prefix, &body).unwrap();
        assert_eq!(Edit::decode(&body).unwrap(), edit);
        for length in 0..body.len() {
            assert!(Edit::decode(&body.slice(..length)).is_err());
        }
    }
}

#[test]
fn the_longest_record_that_is_written_is_the_longest_that_is_read() {
    let of_value = |bytes: usize| {
        let cell = Cell::put(b"row", b"f", b"q", 1, &vec![0; bytes]).unwrap();
        let nonce = Some(Nonce { group: 1, nonce: 2 });
        EncodedEdit::new(region(1), RegionEpoch(1), 0, nonce, &[cell])
    };
    let fixed = of_value(0).unwrap().record_bytes() - RECORD_PREFIX_BYTES;
    let longest = of_value(crate::wal::RECORD_BYTES_MAX - fixed).unwrap();
    let mut record = bytes::BytesMut::new();
    longest.put(SequenceId(3), &mut record);
    let prefix = record[..RECORD_PREFIX_BYTES].try_into().unwrap();
    assert_eq!(body_length(&prefix).unwrap(), crate::wal::RECORD_BYTES_MAX);
    let body = record.freeze().slice(RECORD_PREFIX_BYTES..);
    check_record(&prefix, &body).unwrap();
    assert_eq!(Edit::decode(&body).unwrap().cells.len(), 1);
    let longer = of_value(crate::wal::RECORD_BYTES_MAX + 1 - fixed);
    assert!(matches!(longer, Err(crate::wal::Error::EditTooLong { .. })));
}
