//! A file of an HDFS that is open for reading.

use std::path::PathBuf;

use async_trait::async_trait;
use basalt_fs::ReadFile;
use bytes::Bytes;

use super::file_error;
use crate::read::FileReader;

pub(super) struct HdfsReadFile {
    pub(super) path: PathBuf,
    pub(super) reader: FileReader,
}

// === impl HdfsReadFile ===

#[async_trait]
impl ReadFile for HdfsReadFile {
    async fn read_at(&self, offset: u64, length: usize) -> basalt_fs::Result<Bytes> {
        let end = offset.checked_add(length as u64);
        if end.is_none_or(|end| end > self.reader.length()) {
            return Err(basalt_fs::Error::EndOfFile { path: self.path.clone(), offset, length });
        }
        if length == 0 {
            return Ok(Bytes::new());
        }
        let read = self.reader.read_at(offset, length).await;
        read.map_err(|error| file_error(&self.path, "read", error))
    }

    fn length(&self) -> u64 {
        self.reader.length()
    }

    fn is_far(&self) -> bool {
        true
    }
}
