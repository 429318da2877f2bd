//! Strangers at every port: connections that send nothing, half a request, noise, a request of
//! another protocol or a huge length, and stay for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use basalt_runtime::{Network, Random};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::schedule::{milliseconds, pick};

/// Strangers that come and go until they are dropped.
pub(super) struct Strangers {
    tasks: JoinSet<()>,
    connections: Arc<AtomicU64>,
}

/// What one of them does.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Visit {
    /// Which of the ports it is at.
    port: usize,
    opening: Opening,
    approach: Approach,
    /// How long it stays.
    stay: Duration,
}

/// What it sends first, as if it spoke a protocol of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Opening {
    Nothing,
    /// What HBase's clients send first.
    HbaseRpc,
    /// What HTTP/2 clients send first.
    Grpc,
}

/// What it sends then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Approach {
    Silence,
    HalfRequest,
    Noise,
    HttpRequest,
    HugeLength,
}

/// How many there are at a time.
const STRANGERS: usize = 64;
/// How long a connection stays: below the time after which idle ones are closed, and beyond.
const STAY_MS: std::ops::Range<u64> = 50..15_000;
/// The pause of each between two connections.
const PAUSE_MS: std::ops::Range<u64> = 5..200;
/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const OPENINGS: [Opening; 3] = [Opening::Nothing, Opening::HbaseRpc, Opening::Grpc];
const APPROACHES: [Approach; 5] = [
    Approach::Silence,
    Approach::HalfRequest,
    Approach::Noise,
    Approach::HttpRequest,
    Approach::HugeLength,
];
const NOISE_BYTES: usize = 500;

// === impl Strangers ===

impl Strangers {
    /// Sends them to `ports`, of which there is at least one; what they do is decided by `random`.
    pub(super) fn send(network: &Network, ports: Vec<String>, random: &Random) -> Self {
        let (ports, connections) = (Arc::new(ports), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..STRANGERS {
            let random = Random::from_seed(random.next_u64());
            let (network, ports) = (network.clone(), Arc::clone(&ports));
            let connections = Arc::clone(&connections);
            tasks.spawn(async move {
                loop {
                    let visit = next_visit(&random, ports.len());
                    if let Some(port) = ports.get(visit.port)
                        && visit.make(&network, port, &random).await
                    {
                        connections.fetch_add(1, Ordering::Relaxed);
                    }
                    sleep(milliseconds(&random, PAUSE_MS)).await;
                }
            });
        }
        Self { tasks, connections }
    }

    /// Closes all connections. Gives how many were open in the course of time.
    pub(super) async fn leave(mut self) -> u64 {
        self.tasks.shutdown().await;
        self.connections.load(Ordering::Relaxed)
    }
}

fn next_visit(random: &Random, ports: usize) -> Visit {
    Visit {
        port: random.in_range(0..ports.max(1) as u64) as usize,
        opening: pick(random, &OPENINGS).copied().unwrap_or(Opening::Nothing),
        approach: pick(random, &APPROACHES).copied().unwrap_or(Approach::Silence),
        stay: milliseconds(random, STAY_MS),
    }
}

// === impl Visit ===

impl Visit {
    /// Whether a connection was open.
    async fn make(&self, network: &Network, port: &str, random: &Random) -> bool {
        let connecting = timeout(CONNECT_TIMEOUT, network.connect(port));
        let Ok(Ok(mut connection)) = connecting.await else { return false };
        let sent = [self.opening.bytes(), &self.approach.bytes(random)].concat();
        let talk = async {
            connection.write_all(&sent).await?;
            let mut answer = [0; 1_024];
            // Until the other side has had enough.
            while connection.read(&mut answer).await? > 0 {}
            std::io::Result::Ok(())
        };
        let _ = timeout(self.stay, talk).await;
        true
    }
}

// === impl Opening ===

impl Opening {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Nothing => b"",
            Self::HbaseRpc => b"HBas\0\x50",
            Self::Grpc => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        }
    }
}

// === impl Approach ===

impl Approach {
    fn bytes(self, random: &Random) -> Vec<u8> {
        match self {
            Self::Silence => Vec::new(),
            // 64 KiB are announced.
            Self::HalfRequest => [&(64_u32 << 10).to_be_bytes()[..], &[1; 1_000]].concat(),
            Self::Noise => {
                let mut noise = vec![0; NOISE_BYTES];
                random.fill(&mut noise);
                noise
            }
            Self::HttpRequest => b"GET / HTTP/1.1\r\nHost: basalt\r\n\r\n".to_vec(),
            Self::HugeLength => vec![0xff; 4],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_approach_has_its_turn_at_every_port_and_the_same_seed_gives_the_same_visits() {
        let visits = |seed| {
            let random = Random::from_seed(seed);
            (0..2_000).map(|_| next_visit(&random, 19)).collect::<Vec<_>>()
        };
        let all = visits(7);
        for port in 0..19 {
            for approach in APPROACHES {
                let is_it = |visit: &Visit| visit.port == port && visit.approach == approach;
                assert!(all.iter().any(is_it), "{port} {approach:?}");
            }
        }
        assert!(OPENINGS.iter().all(|opening| all.iter().any(|visit| visit.opening == *opening)));
        assert_eq!(visits(7), all);
        assert_ne!(visits(8), all);
    }
}
