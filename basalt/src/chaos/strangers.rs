//! Strangers at every port: connections that send nothing, half a request, noise, a request of
//! another protocol or a huge length, and then stay open for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use basalt_measure::stranger::{self, Approach, Opening};
use basalt_runtime::{Network, Random};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::schedule::milliseconds;

/// Strangers that connect and disconnect until they are dropped.
pub(super) struct Strangers {
    tasks: JoinSet<()>,
    connections: Arc<AtomicU64>,
}

/// One connection of a stranger.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Visit {
    /// The index of the port.
    port: usize,
    opening: Opening,
    approach: Approach,
    /// How long the connection stays open.
    stay: Duration,
}

/// The number of strangers at a time.
const STRANGERS: usize = 64;
/// How long a connection stays open: from less than the timeout of idle connections to more.
const STAY_MS: std::ops::Range<u64> = 50..15_000;
/// The pause of a stranger between two connections.
const PAUSE_MS: std::ops::Range<u64> = 5..200;
/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const NOISE_BYTES: usize = 500;

// === impl Strangers ===

impl Strangers {
    /// Starts strangers at `ports`, which must not be empty. `random` decides what they do.
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

    /// Closes all connections. Returns how many were opened in total.
    pub(super) async fn leave(mut self) -> u64 {
        self.tasks.shutdown().await;
        self.connections.load(Ordering::Relaxed)
    }
}

fn next_visit(random: &Random, ports: usize) -> Visit {
    Visit {
        port: random.in_range(0..ports.max(1) as u64) as usize,
        opening: random.pick(&Opening::ALL).copied().unwrap_or(Opening::Nothing),
        approach: random.pick(&Approach::ALL).copied().unwrap_or(Approach::Silence),
        stay: milliseconds(random, STAY_MS),
    }
}

// === impl Visit ===

impl Visit {
    /// Opens the connection. Returns whether it was open.
    async fn make(&self, network: &Network, port: &str, random: &Random) -> bool {
        let connecting = timeout(CONNECT_TIMEOUT, network.connect(port));
        let Ok(Ok(connection)) = connecting.await else { return false };
        let mut noise = [0; NOISE_BYTES];
        random.fill(&mut noise);
        let sent = [self.opening.bytes(), &self.approach.bytes(&noise)].concat();
        stranger::visit(connection, &sent, self.stay).await;
        true
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
            for approach in Approach::ALL {
                let is_it = |visit: &Visit| visit.port == port && visit.approach == approach;
                assert!(all.iter().any(is_it), "{port} {approach:?}");
            }
        }
        assert!(
            Opening::ALL.iter().all(|opening| all.iter().any(|visit| visit.opening == *opening))
        );
        assert_eq!(visits(7), all);
        assert_ne!(visits(8), all);
    }
}
