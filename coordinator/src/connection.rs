//! One connection of a client, from accept to close.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use basalt_runtime::{Connection, Listener, Shutdown};
use basalt_zk::proto::frame::{FrameError, FrameReader};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf};
use tokio::task::JoinSet;

use crate::four_letter;
use crate::handshake::shake_hands;
use crate::member::Member;
use crate::outgoing::Outgoing;
use crate::request::{self, Client};

type Frames = FrameReader<ReadHalf<Connection>>;

/// The first message of a connection.
enum First {
    Session(Bytes),
    FourLetterWord([u8; 4]),
    Nothing,
}

/// The longest first message. A connect request has about 50 bytes.
const HANDSHAKE_BYTES_MAX: usize = 1024;
/// A longer frame waits for its share of the memory for incoming frames.
const SHORT_FRAME_BYTES: usize = 64 << 10;
/// How long accepting pauses after an error, such as running out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts clients for ever.
pub(crate) async fn accept_all(member: Arc<Member>, mut listener: Box<dyn Listener>) {
    let mut connections = JoinSet::new();
    let mut accepted = 0;
    let mut is_full = false;
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            next = listener.accept() => match next {
                Ok((connection, peer)) => {
                    accepted += 1;
                    let was_full = is_full;
                    is_full = connections.len() >= member.config.limits.connections_max;
                    if is_full {
                        if !was_full {
                            tracing::warn!(%peer, "too many clients: new ones are closed");
                        }
                        continue;
                    }
                    let member = Arc::clone(&member);
                    connections.spawn(Box::pin(serve(member, connection, peer, accepted)));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn serve(member: Arc<Member>, connection: Connection, peer: SocketAddr, number: u64) {
    let timeout = member.config.timers.client_io_timeout;
    let (reader, mut writer) = tokio::io::split(connection);
    let mut frames = FrameReader::new(reader, HANDSHAKE_BYTES_MAX);
    let first = tokio::time::timeout(timeout, first_message(&mut frames)).await;
    match first.unwrap_or(First::Nothing) {
        First::Session(first) if *member.serving.borrow() => {
            frames.set_bytes_max(member.config.limits.frame_bytes_max);
            member.connection_count.fetch_add(1, Ordering::Relaxed);
            serve_session(&member, (frames, writer), first, (peer, number)).await;
            member.connection_count.fetch_sub(1, Ordering::Relaxed);
        }
        // No answer: the client tries another member.
        First::Session(_) | First::Nothing => {}
        First::FourLetterWord(word) => {
            if let Some(answer) = four_letter::answer(&member, word) {
                let written = async {
                    writer.write_all(answer.as_bytes()).await?;
                    writer.shutdown().await
                };
                // The client may be gone, or slow. The outcome does not matter.
                let _written = tokio::time::timeout(timeout, written).await;
            }
        }
    }
}

async fn first_message<R: AsyncRead + Unpin>(frames: &mut FrameReader<R>) -> First {
    match frames.next().await {
        Ok(Some(first)) => First::Session(first),
        // Four letters, read as a length, exceed any bound.
        Err(FrameError::Length { length, .. }) => First::FourLetterWord(length.to_be_bytes()),
        Ok(None) | Err(FrameError::Io(_)) => First::Nothing,
    }
}

async fn serve_session(
    member: &Arc<Member>,
    (mut frames, writer): (Frames, impl AsyncWrite + Unpin),
    first: Bytes,
    (peer, number): (SocketAddr, u64),
) {
    let timeout = member.config.timers.client_io_timeout;
    let stop = Shutdown::new();
    let (outgoing, queue) = Outgoing::new(number, peer, stop.clone(), Arc::clone(&member.queued));
    let mut write = pin!(queue.run(writer, timeout));
    let mut serving = member.serving.subscribe();
    let mut client = None;
    let finished = {
        let read = async {
            client = shake_hands(member, &outgoing, first).await;
            match &client {
                Some(client) => read_all(&mut frames, client).await,
                None => outgoing.finish(),
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            // This also closes a connection that is still in its handshake.
            _ = serving.wait_for(|serving| !serving) => false,
            written = &mut write => {
                if let Err(error) = written {
                    tracing::debug!(%peer, %error, "the connection was lost");
                }
                false
            }
            () = read => true,
        }
    };
    if finished {
        // Queued frames are still written, until `stop` or the timeout.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            _ = &mut write => {}
            () = tokio::time::sleep(timeout) => {}
        }
    }
    if let Some(client) = client {
        let replica = &member.replica;
        replica.disconnected(client.session, client.attachment, number);
    }
}

/// Handles requests until the client closes the connection, or a request cannot be read or decoded.
async fn read_all(frames: &mut Frames, client: &Client) {
    loop {
        match read_one(frames, client).await {
            Ok(Some(_)) => {}
            Ok(None) => return client.outgoing.close(),
            Err(error) => {
                tracing::info!(peer = %client.outgoing.peer, %error, "lost a client");
                return client.outgoing.close();
            }
        }
    }
}

/// Handles one request. Returns `None` if the client has closed the connection.
async fn read_one(frames: &mut Frames, client: &Client) -> io::Result<Option<()>> {
    let member = &client.member;
    let Some(length) = frames.next_length().await.map_err(io::Error::other)? else {
        return Ok(None);
    };
    // Wait before any of the frame is read: a client that does not read its replies must not send
    // more requests.
    client.outgoing.has_room().await;
    let _memory = match length > SHORT_FRAME_BYTES {
        true => {
            let bytes = length.min(member.config.limits.incoming_bytes_max);
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            // The semaphore is never closed, so there is always a permit.
            member.incoming.acquire_many(bytes).await.ok()
        }
        false => None,
    };
    // A client must finish a frame that it has begun, because a partial frame holds memory.
    let frame = tokio::time::timeout(member.config.timers.client_io_timeout, frames.next());
    let Some(frame) = frame.await?.map_err(io::Error::other)? else {
        return Ok(None);
    };
    client.outgoing.received.fetch_add(1, Ordering::Relaxed);
    member.touch(client.session);
    request::handle(client, frame).await.map_err(io::Error::other)?;
    Ok(Some(()))
}
