//! The bytes that a stranger at a port sends: nothing, half a request, noise, a request of another
//! protocol or a huge length. They may follow the opening bytes of one of our protocols.

use std::time::Duration;

use basalt_runtime::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// The bytes that it sends first, as if it spoke one of our protocols.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opening {
    /// The first bytes of an HBase client.
    HbaseRpc,
    /// The first bytes of an HTTP/2 client.
    Grpc,
    /// Nothing.
    Nothing,
}

/// The bytes that it sends next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Approach {
    /// Nothing.
    Silence,
    /// Random bytes.
    Noise,
    /// An HTTP/1.1 request.
    HttpRequest,
    /// A length of nearly 4 GiB.
    HugeLength,
    /// A length of 64 KiB, followed by a part of the request only.
    HalfRequest,
}

/// Sends `bytes`, then reads until the other side closes the connection or `stay` is over.
pub async fn visit(mut connection: Connection, bytes: &[u8], stay: Duration) {
    let talk = async {
        connection.write_all(bytes).await?;
        let mut answer = [0; 1_024];
        while connection.read(&mut answer).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Any outcome is fine.
    let _ = timeout(stay, talk).await;
}

// === impl Opening ===

impl Opening {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::HbaseRpc, Self::Grpc, Self::Nothing];

    /// The bytes to send.
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Self::HbaseRpc => b"HBas\0\x50",
            Self::Grpc => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            Self::Nothing => b"",
        }
    }
}

// === impl Approach ===

impl Approach {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Silence, Self::Noise, Self::HttpRequest, Self::HugeLength, Self::HalfRequest];

    /// The bytes to send. `noise` is used for [`Self::Noise`].
    pub fn bytes(self, noise: &[u8]) -> Vec<u8> {
        match self {
            Self::Silence => Vec::new(),
            Self::Noise => noise.to_vec(),
            Self::HttpRequest => b"GET / HTTP/1.1\r\nHost: basalt\r\n\r\n".to_vec(),
            Self::HugeLength => vec![0xff; 4],
            Self::HalfRequest => [&(64_u32 << 10).to_be_bytes()[..], &[1; 1_000]].concat(),
        }
    }
}
