//! Fixed measurements for the tests of the reports.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::measurement::{Fault, FaultKind, Measurement, Phases, Totals};
use crate::outage::{FaultWindow, Outage, RegionOutages};
use crate::probe::Audit;
use crate::timeline::{BUCKET_MS, Bucket, Tally};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Two regions over ten seconds, with faults of a region server and a master.
pub(crate) fn small() -> Measurement {
    let mut measurement = Measurement {
        cluster: "made up".to_owned(),
        length: ms(10_000),
        buckets: vec![Bucket::default(); 200],
        writes: Totals::default(),
        reads: Totals::default(),
        regions: vec![RegionOutages::default(); 2],
        faults: vec![
            fault(FaultKind::KillRegionServer, "regionserver-1", 1000, Some(1300), &[0]),
            fault(FaultKind::KillMaster, "master-0", 3000, Some(3700), &[]),
        ],
        audit: Audit { acked: 20, unknown: 1, lost: 0 },
        stale_reads: 0,
    };
    measurement.faults[0].wal_bytes = Some(4096);
    measurement.faults[0].phases = Some(phases([40, 10, 100, 20, 30]));
    measurement.regions[0].writes = vec![outage(1000, 1250), outage(8000, 8020)];
    measurement.regions[0].reads = vec![outage(1005, 1245)];
    (0..19).for_each(|_| measurement.writes.latencies.record(ms(2)));
    measurement.writes.latencies.record(ms(4));
    measurement.writes.late.record(ms(900));
    (0..10).for_each(|_| measurement.reads.latencies.record(ms(1)));
    measurement
}

/// Twelve regions over one minute. Three region servers, the master and the coordinator's leader
/// are killed.
pub(crate) fn large() -> Measurement {
    let mut measurement = small();
    measurement.cluster = "basalt 0.1.0, 3 region servers, 12 regions".to_owned();
    measurement.length = ms(60_000);
    measurement.regions = vec![RegionOutages::default(); 12];
    measurement.faults = Vec::new();
    for kill in 0..3_u64 {
        let at = 6_000 + kill * 13_000;
        let regions: Vec<usize> = (0..4).map(|index| (kill as usize + index * 3) % 12).collect();
        let victim = format!("regionserver-{kill}");
        let recovered = Some(at + 330);
        let mut kill_of = fault(FaultKind::KillRegionServer, &victim, at, recovered, &regions);
        kill_of.wal_bytes = Some(41_000_000 + kill * 3_333_333);
        kill_of.phases = Some(phases([22, 31, 96 + kill * 9, 28, 64]));
        for (order, region) in regions.iter().enumerate() {
            let end = at + 250 + order as u64 * 18 + kill * 7;
            measurement.regions[*region].writes.push(outage(at - 3, end));
            measurement.regions[*region].reads.push(outage(at - 1, end + 4));
        }
        measurement.faults.push(kill_of);
    }
    for (kind, victim, at) in [
        (FaultKind::KillMaster, "master-0", 46_000),
        (FaultKind::KillCoordinatorLeader, "coordinator-1", 53_000),
    ] {
        let mut fault = fault(kind, victim, at, Some(at + 420), &[]);
        fault.phases = Some(Phases { total: Some(ms(417)), ..Phases::default() });
        measurement.faults.push(fault);
    }
    measurement.buckets = (0..measurement.length.as_millis() as u64 / BUCKET_MS)
        .map(|index| bucket(index, &measurement))
        .collect();
    (0..70_000_u64).for_each(|i| measurement.writes.latencies.record(ms(2 + i % 7)));
    (0..71_000_u64).for_each(|i| measurement.reads.latencies.record(ms(1 + i % 3)));
    measurement.audit.acked = 70_000;
    measurement.audit.unknown = 31;
    measurement
}

fn bucket(index: u64, measurement: &Measurement) -> Bucket {
    let at = ms(index * BUCKET_MS);
    let out = measurement.regions.iter().flat_map(|region| &region.writes);
    let out = out.filter(|outage| outage.start <= at && at < outage.end).count() as u32;
    // Small irregularities, like those of a real machine.
    let noise = ((index * 2_654_435_761) >> 7) % 9;
    let tally = |p50: u32| Tally {
        succeeded: (60 - 5 * out) - u32::try_from(noise).unwrap() / 3,
        failed: 4 * out,
        p50_us: p50 + 90 * u32::try_from(noise).unwrap() + 700 * out,
        p99_us: p50 * 3 + 700 * u32::try_from(noise).unwrap() + 9_000 * out,
    };
    Bucket { writes: tally(2_100), reads: tally(450) }
}

fn fault(
    kind: FaultKind,
    victim: &str,
    at: u64,
    recovered: Option<u64>,
    affected: &[usize],
) -> Fault {
    Fault {
        kind,
        victim: victim.to_owned(),
        window: FaultWindow {
            at: ms(at),
            recovered_at: recovered.map(ms),
            affected: affected.iter().copied().collect::<BTreeSet<_>>(),
        },
        wal_bytes: None,
        phases: None,
    }
}

fn phases([detect, fence, split, assign, replay]: [u64; 5]) -> Phases {
    Phases {
        detect: Some(ms(detect)),
        fence: Some(ms(fence)),
        split: Some(ms(split)),
        assign: Some(ms(assign)),
        replay: Some(ms(replay)),
        total: Some(ms(detect + fence + split + assign + replay)),
    }
}

fn outage(start: u64, end: u64) -> Outage {
    Outage { start: ms(start), end: ms(end) }
}
