//! A writer for the fencing tests. It appends records of 100 bytes and prints how many are
//! acknowledged, until it is killed or its file is fenced.
//!
//! `log_writer CONF_FOLDER PATH FLUSHES_AT_ONCE` prints `acked N` for each acknowledged flush,
//! where N is the number of records that are on all DataNodes. It prints `failed WHY` when it ends
//! by itself.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use basalt_hdfs::{HdfsConfig, HdfsFileSystem};
use basalt_runtime::Seams;
use tokio::sync::mpsc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, path, at_once] = arguments.as_slice() else {
        anyhow::bail!("usage: log_writer CONF_FOLDER PATH FLUSHES_AT_ONCE");
    };
    let config = HdfsConfig::from_folder(Path::new(folder), None)?;
    // Every block must be on all DataNodes, even if the NameNode considers one too busy at the
    // moment: the tests are about what happens to one of three.
    let config = HdfsConfig { replicas_min: config.replication as usize, ..config };
    let files = HdfsFileSystem::new(&Seams::system(), config, Path::new("/"))?;
    let result = write(&files, path, at_once.parse().context("FLUSHES_AT_ONCE")?).await;
    let error = result.err().map(|error| error.to_string()).unwrap_or_default();
    println!("failed {error}");
    Ok(())
}

async fn write(files: &HdfsFileSystem, path: &str, at_once: usize) -> basalt_hdfs::Result<()> {
    let mut file = files.create_file(Path::new(path)).await?;
    let (flushes, mut waiting) = mpsc::channel::<(u64, basalt_hdfs::Flushed)>(at_once.max(1));
    let sending = tokio::spawn(async move {
        while let Some((records, flushed)) = waiting.recv().await {
            flushed.wait().await?;
            println!("acked {records}");
            // Each line is one acknowledgement, so it must be written before the next one counts.
            std::io::stdout().flush().ok();
        }
        Ok::<_, basalt_hdfs::Error>(())
    });
    for number in 0_u64.. {
        file.append(format!("{number:099}\n").as_bytes()).await?;
        let Some(flushed) = file.flush().await? else { continue };
        if flushes.send((number + 1, flushed)).await.is_err() {
            break;
        }
    }
    sending.await.unwrap_or(Ok(()))
}
