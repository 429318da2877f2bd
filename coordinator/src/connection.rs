//! One connection of a client, from accept to close.

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

/// What a connection begins with.
enum First {
    Session(Bytes),
    FourLetterWord([u8; 4]),
    Nothing,
}

/// How long accepting pauses after an error, such as running out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts clients for ever.
pub(crate) async fn accept_all(member: Arc<Member>, mut listener: Box<dyn Listener>) {
    let mut connections = JoinSet::new();
    let mut accepted = 0;
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            next = listener.accept() => match next {
                Ok((connection, peer)) => {
                    accepted += 1;
                    if connections.len() >= member.config.limits.connections_max {
                        tracing::warn!(%peer, "refused: as many clients as there may be");
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
    let mut frames = FrameReader::new(reader, member.config.limits.frame_bytes_max);
    let first = tokio::time::timeout(timeout, first_message(&mut frames)).await;
    match first.unwrap_or(First::Nothing) {
        First::Session(first) if *member.serving.borrow() => {
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
                // The asker may have gone, or be slow: it is not waited for.
                let _written = tokio::time::timeout(timeout, written).await;
            }
        }
    }
}

async fn first_message<R: AsyncRead + Unpin>(frames: &mut FrameReader<R>) -> First {
    match frames.next().await {
        Ok(Some(first)) => First::Session(first),
        // Four letters, taken for a length, are beyond any bound.
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
    let (outgoing, queue) = Outgoing::new(number, peer, stop.clone());
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
            // Also one that is still shaking hands.
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
        // What is queued is still written, as long as it takes and nobody says stop.
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

/// Handles requests until the client is gone or says what cannot be understood.
async fn read_all(frames: &mut Frames, client: &Client) {
    loop {
        match frames.next().await {
            Ok(Some(frame)) => {
                client.outgoing.received.fetch_add(1, Ordering::Relaxed);
                client.member.touch(client.session);
                client.outgoing.has_room().await;
                if let Err(error) = request::handle(client, frame).await {
                    tracing::warn!(peer = %client.outgoing.peer, %error, "not a request");
                    return client.outgoing.close();
                }
            }
            Ok(None) => return client.outgoing.close(),
            Err(error) => {
                tracing::info!(peer = %client.outgoing.peer, %error, "lost a client");
                return client.outgoing.close();
            }
        }
    }
}
