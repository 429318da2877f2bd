//! Tests of the local file system.

use super::*;

fn open() -> (tempfile::TempDir, LocalFileSystem) {
    let folder = tempfile::tempdir().unwrap();
    let files = LocalFileSystem::open(folder.path()).unwrap();
    (folder, files)
}

#[tokio::test]
async fn what_was_appended_is_read_back() {
    let (_folder, files) = open();
    let mut file = files.create(Path::new("/log")).await.unwrap();
    file.append(Bytes::from_static(b"basalt")).await.unwrap();
    file.sync().await.unwrap();
    assert_eq!(file.length(), 6);
    let reader = files.open(Path::new("/log")).await.unwrap();
    assert_eq!(&reader.read_at(2, 4).await.unwrap()[..], b"salt");
    assert!(matches!(reader.read_at(4, 4).await, Err(Error::EndOfFile { .. })));
}

#[tokio::test]
async fn ranges_are_read_one_after_another() {
    let (_folder, files) = open();
    let contents: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    let mut file = files.create(Path::new("/log")).await.unwrap();
    file.append_and_sync(contents.clone().into()).await.unwrap();
    assert_eq!(file.length(), 100_000);
    let reader = files.open(Path::new("/log")).await.unwrap();
    let ranges = [0..10, 10..20, 500..501, 9_000..9_000, 9_100..90_000, 99_990..100_000];
    let expected: Vec<u8> = ranges
        .iter()
        .flat_map(|range| contents[range.start as usize..range.end as usize].to_vec())
        .collect();
    assert_eq!(&reader.read_ranges(&ranges).await.unwrap()[..], expected);
    assert!(matches!(
        reader.read_ranges(&[0..1, 99_999..100_001]).await,
        Err(Error::EndOfFile { .. })
    ));
}

#[test]
fn without_a_sparing_rename_a_link_spares_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["a", "b"] {
        fs::write(path(name), name).unwrap();
        fs::create_dir(path(&format!("{name}-folder"))).unwrap();
    }
    let taken = |from: &str, to: &str| {
        let renamed = rename_by_link(&path(from), &path(to));
        matches!(renamed, Err(Error::AlreadyExists { .. }))
    };
    assert!(taken("a", "b") && taken("a-folder", "b-folder") && taken("a-folder", "b"));
    assert!(rename_by_link(&path("gone"), &path("c")).unwrap_err().is_not_found());
    rename_by_link(&path("a"), &path("c")).unwrap();
    rename_by_link(&path("a-folder"), &path("c-folder")).unwrap();
    assert_eq!(fs::read(path("c")).unwrap(), b"a");
    assert!(path("c-folder").is_dir() && !path("a").exists() && !path("a-folder").exists());
}

#[tokio::test]
async fn neither_create_nor_rename_replaces_a_file() {
    let (_folder, files) = open();
    files.write_whole(Path::new("/a"), Bytes::from_static(b"1")).await.unwrap();
    files.write_whole(Path::new("/b"), Bytes::from_static(b"2")).await.unwrap();
    assert!(files.create(Path::new("/a")).await.err().unwrap().is_already_exists());
    let renamed = files.rename(Path::new("/a"), Path::new("/b")).await;
    assert!(renamed.unwrap_err().is_already_exists());
    assert_eq!(&files.read_whole(Path::new("/b"), 10).await.unwrap()[..], b"2");
}

#[tokio::test]
async fn what_is_reserved_takes_room_and_no_length_until_the_file_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let files = LocalFileSystem::open(folder.path()).unwrap();
    let path = Path::new("/log");
    let on_disk = || fs::metadata(folder.path().join("log")).unwrap();
    let taken = || on_disk().blocks() * 512;
    let mut file = files.create(path).await.unwrap();
    file.reserve(1 << 20).await.unwrap();
    file.append_and_sync(Bytes::from_static(b"record")).await.unwrap();
    assert_eq!(on_disk().len(), 6);
    assert!(taken() >= 1 << 20, "{} bytes", taken());
    assert_eq!(files.seal(path, files.boot_id()).await.unwrap().length, 6);
    drop(file);
    assert_eq!(on_disk().len(), 6);
    assert!(taken() < 1 << 16, "{} bytes", taken());
}

#[test]
fn a_full_disk_is_named_with_what_is_free() {
    let full = io::Error::from(rustix::io::Errno::NOSPC);
    let error = Error::from_io(Path::new("/tmp/no/such/file"), "append to", full);
    assert!(error.is_storage_full());
    let message = error.to_string();
    assert!(message.contains("the disk of /tmp has "), "{message}");
    assert!(message.contains("MiB free"), "{message}");
}

#[tokio::test]
async fn a_held_file_is_not_sealed_until_its_writer_lets_go() {
    let (_folder, files) = open();
    let mut file = files.create(Path::new("/log")).await.unwrap();
    file.append(Bytes::from_static(b"abc")).await.unwrap();
    let held = files.seal(Path::new("/log"), files.boot_id()).await.unwrap();
    assert!(!held.writer_gone);
    drop(file);
    let free = files.seal(Path::new("/log"), files.boot_id()).await.unwrap();
    assert_eq!(free, Seal { length: 3, is_final: true, writer_gone: true, may_shrink: false });
    let elsewhere = files.seal(Path::new("/log"), "another boot").await.unwrap();
    assert!(!elsewhere.writer_gone, "a free lock proves nothing about another kernel");
}

#[tokio::test]
async fn a_file_that_was_taken_away_is_synced_no_more() {
    let (_folder, files) = open();
    files.create_directories(Path::new("/wal")).await.unwrap();
    let mut file = files.create(Path::new("/wal/1")).await.unwrap();
    file.append_and_sync(Bytes::from_static(b"before")).await.unwrap();
    files.rename(Path::new("/wal"), Path::new("/wal-fenced")).await.unwrap();
    let synced = file.append_and_sync(Bytes::from_static(b"behind the cut")).await;
    assert!(matches!(synced, Err(Error::TakenAway { .. })), "{synced:?}");
    // Nor after another file has been created under that name.
    files.create_directories(Path::new("/wal")).await.unwrap();
    let mut other = files.create(Path::new("/other")).await.unwrap();
    files.create(Path::new("/wal/1")).await.unwrap();
    files.rename(Path::new("/other"), Path::new("/elsewhere")).await.unwrap();
    assert!(other.sync().await.is_err() && file.sync().await.is_err());
}

#[tokio::test]
async fn a_file_given_up_on_takes_nothing_more_and_stays_locked() {
    let (_folder, files) = open();
    let mut file = files.create(Path::new("/log")).await.unwrap();
    let given_up = tokio::time::timeout(std::time::Duration::ZERO, async {
        file.append(Bytes::from(vec![0; 1 << 20])).await
    });
    if given_up.await.is_ok() {
        return; // The disk was faster than giving up.
    }
    assert!(file.sync().await.is_err());
    let seal = files.seal(Path::new("/log"), files.boot_id()).await;
    assert!(!seal.unwrap().writer_gone, "its process still lives");
}
