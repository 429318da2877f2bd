//! What a stranger at a port sends: nothing, half a request, noise, a request of another protocol
//! or a huge length, perhaps behind what clients of one of our protocols send first.

use std::time::Duration;

use basalt_runtime::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// What it sends first, as if it spoke a protocol of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opening {
    /// What HBase's clients send first.
    HbaseRpc,
    /// What HTTP/2 clients send first.
    Grpc,
    /// Nothing.
    Nothing,
}

/// What it sends then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Approach {
    /// Nothing.
    Silence,
    /// Bytes of any kind.
    Noise,
    /// A request of HTTP/1.1.
    HttpRequest,
    /// A length of nearly 4 GiB.
    HugeLength,
    /// A length of 64 KiB, and a part of that.
    HalfRequest,
}

/// Sends `bytes`, reads until the other side has had enough, and stays for `stay` at most.
pub async fn visit(mut connection: Connection, bytes: &[u8], stay: Duration) {
    let talk = async {
        connection.write_all(bytes).await?;
        let mut answer = [0; 1_024];
        while connection.read(&mut answer).await? > 0 {}
        std::io::Result::Ok(())
    };
    // However that ended.
    let _ = timeout(stay, talk).await;
}

// === impl Opening ===

impl Opening {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::HbaseRpc, Self::Grpc, Self::Nothing];

    /// What is sent.
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

    /// What is sent; `noise` where it is noise.
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
