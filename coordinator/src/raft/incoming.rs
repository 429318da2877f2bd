//! The connections from the other members.
//!
//! A connection is closed if it carries no request of this ensemble within a short time. When all
//! places are taken, a new connection replaces one that has not introduced itself yet. Strangers
//! can therefore not keep the members out.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use basalt_runtime::{Listener, Shutdown, grpc};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

/// One connection of a peer.
pub(crate) struct PeerStream {
    stream: grpc::Accepted,
    info: PeerInfo,
    deadline: Pin<Box<Sleep>>,
    /// Completes when the connection must make room for another.
    evicted: Pin<Box<WaitForCancellationFutureOwned>>,
    places: Arc<Places>,
    number: u64,
}

/// What the service knows about the connection of a request.
#[derive(Clone, Debug)]
pub(crate) struct PeerInfo {
    pub(crate) address: SocketAddr,
    is_known: Arc<AtomicBool>,
}

/// The open connections, in the order in which they were accepted.
#[derive(Debug, Default)]
struct Places(Mutex<BTreeMap<u64, Place>>);

/// The place of one connection.
#[derive(Debug)]
struct Place {
    address: IpAddr,
    is_known: Arc<AtomicBool>,
    evict: Shutdown,
}

/// How many connections there may be: one for each of four other members, and room for broken ones
/// that are not noticed yet.
const CONNECTIONS_MAX: usize = 64;
/// The same, including evicted connections that have not ended yet.
const CONNECTIONS_WITH_EVICTED_MAX: usize = 2 * CONNECTIONS_MAX;
/// How long a connection may take until its first request of this ensemble.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(5);

// === impl PeerInfo ===

impl PeerInfo {
    /// Records that the connection has carried a request of this ensemble, so that it stays open.
    pub(crate) fn make_known(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }
}

/// The connections that `listener` accepts. A connection is closed at once if there is no place for
/// it and no other can be evicted.
pub(crate) fn incoming(listener: Box<dyn Listener>) -> impl Stream<Item = io::Result<PeerStream>> {
    let places = Arc::new(Places::default());
    let mut number = 0;
    grpc::incoming(listener).filter_map(move |accepted| {
        number += 1;
        let stream = match accepted {
            Ok(stream) => PeerStream::new(stream, &places, number).map(Ok),
            Err(error) => Some(Err(error)),
        };
        std::future::ready(stream)
    })
}

// === impl Places ===

impl Places {
    /// Takes a place, if there is one or another connection can be evicted.
    fn take(&self, number: u64, place: Place) -> Option<()> {
        let mut places = self.0.lock();
        let staying = places.values().filter(|place| place.is_known() || !place.is_evicted());
        if staying.count() >= CONNECTIONS_MAX {
            let evicted = evict(&places)?;
            if places.len() >= CONNECTIONS_WITH_EVICTED_MAX {
                return None;
            }
            places.get(&evicted)?.evict.cancel();
        }
        places.insert(number, place);
        Some(())
    }
}

/// The connection to evict. Among those that have not introduced themselves, it is the oldest one
/// of the address that has the most.
fn evict(places: &BTreeMap<u64, Place>) -> Option<u64> {
    let mut unknown: BTreeMap<IpAddr, Vec<u64>> = BTreeMap::new();
    let strangers = places.iter().filter(|(_, place)| !place.is_known() && !place.is_evicted());
    for (number, place) in strangers {
        unknown.entry(place.address).or_default().push(*number);
    }
    let oldest = unknown.into_values().map(|numbers| (numbers.len(), Reverse(numbers[0])));
    oldest.max().map(|(_, Reverse(number))| number)
}

// === impl Place ===

impl Place {
    fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    fn is_evicted(&self) -> bool {
        self.evict.is_cancelled()
    }
}

// === impl PeerStream ===

impl PeerStream {
    /// Returns `None` if there is no place for the connection.
    fn new(stream: grpc::Accepted, places: &Arc<Places>, number: u64) -> Option<Self> {
        let info = PeerInfo { address: stream.connect_info(), is_known: Arc::default() };
        let (evict, is_known) = (Shutdown::new(), Arc::clone(&info.is_known));
        let evicted = Box::pin(evict.clone().cancelled_owned());
        places.take(number, Place { address: info.address.ip(), is_known, evict })?;
        let deadline = Box::pin(tokio::time::sleep(INTRODUCTION_TIMEOUT));
        Some(Self { stream, info, deadline, evicted, places: Arc::clone(places), number })
    }

    /// Fails once the connection must end because it has not introduced itself. The task is woken
    /// then. Writes check this as well: while they wait for a peer that does not read, nothing is
    /// read either.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let is_over = !self.info.is_known.load(Ordering::Relaxed)
            && (self.deadline.as_mut().poll(context).is_ready()
                || self.evicted.as_mut().poll(context).is_ready());
        if is_over { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl Drop for PeerStream {
    fn drop(&mut self) {
        self.places.0.lock().remove(&self.number);
    }
}

impl Connected for PeerStream {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_runtime::Seams;
    use tokio::io::AsyncWriteExt;

    fn place(last: u8) -> Place {
        let address = IpAddr::from([10, 0, 0, last]);
        Place { address, is_known: Arc::default(), evict: Shutdown::new() }
    }

    fn evicted(places: &Places) -> Vec<u64> {
        let places = places.0.lock();
        let gone = places.iter().filter(|(_, place)| place.evict.is_cancelled());
        gone.map(|(number, _)| *number).collect()
    }

    #[test]
    fn a_newcomer_takes_the_place_of_the_oldest_stranger_from_where_most_come() {
        let places = Places::default();
        for number in 0..64 {
            // A member, another address, and strangers.
            let place = place(if number == 1 { 7 } else { 9 });
            place.is_known.store(number == 0, Ordering::Relaxed);
            assert!(places.take(number, place).is_some());
        }
        assert_eq!(evicted(&places), []);
        assert!(places.take(64, place(1)).is_some() && places.take(65, place(9)).is_some());
        assert_eq!(evicted(&places), [2, 3]);
        // The number of evicted connections that have not ended is bounded, too.
        let taken = (66..1_000).filter(|number| places.take(*number, place(9)).is_some()).count();
        assert_eq!(taken, CONNECTIONS_WITH_EVICTED_MAX - 66);
    }

    #[test]
    fn of_strangers_from_as_many_places_the_oldest_makes_room() {
        let places = Places::default();
        for number in 0..64 {
            assert!(places.take(number, place(200 - u8::try_from(number).unwrap())).is_some());
        }
        for (number, oldest) in [(64, vec![0]), (65, vec![0, 1])] {
            let newcomer = place(250);
            let is_known = Arc::clone(&newcomer.is_known);
            assert!(places.take(number, newcomer).is_some());
            assert_eq!(evicted(&places), oldest, "not the newcomer before");
            is_known.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn one_that_has_to_make_room_ends_although_it_reads_nothing() {
        let network = Seams::system().network;
        let listener = network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_address().unwrap().to_string();
        let mut accepted = Box::pin(incoming(listener));
        let _reads_nothing = network.connect(&address).await.unwrap();
        let mut stream = accepted.next().await.unwrap().unwrap();
        let evict = stream.places.0.lock()[&stream.number].evict.clone();
        let writing = tokio::spawn(async move {
            loop {
                if let Err(error) = stream.write_all(&[0; 64 << 10]).await {
                    return error.kind();
                }
            }
        });
        // Until no more bytes are accepted.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!writing.is_finished());
        evict.cancel();
        assert_eq!(writing.await.unwrap(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn nobody_makes_room_who_has_introduced_itself() {
        let places = Places::default();
        for number in 0..64 {
            let place = place(9);
            place.is_known.store(true, Ordering::Relaxed);
            assert!(places.take(number, place).is_some());
        }
        assert!(places.take(64, place(1)).is_none());
        assert_eq!(evicted(&places), []);
    }
}
