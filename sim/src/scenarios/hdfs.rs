//! The files are on an HDFS. Its NameNode and DataNodes fail as well as the processes that use
//! them.

use std::time::Duration;

use basalt_failpoint::{Answer, Point};
use basalt_runtime::Random;

use super::{Scenario, happens, kill, ms, owner, partition, pause};
use crate::faults::{Fault, FaultAction, Trap, Victim};
use crate::hdfs::{HdfsFault, Outage};
use crate::plan::Layout;

const ON_HDFS: Layout = Layout { on_hdfs: true, ..Layout::SMALL };

pub(super) const SERVER_CRASH: Scenario = Scenario {
    name: "hdfs-server-crash",
    about: "on HDFS: a region server is killed, with or without its DataNode, and perhaps another",
    layout: ON_HDFS,
    faults: server_crash,
};

pub(super) const NAME_NODE: Scenario = Scenario {
    name: "hdfs-name-node",
    about: "on HDFS: the NameNode is unavailable, restarts or is in safe mode; a region server is \
            killed",
    layout: ON_HDFS,
    faults: name_node,
};

pub(super) const CHAOS: Scenario = Scenario {
    name: "hdfs-chaos",
    about: "on HDFS: faults of servers, masters, DataNodes and the NameNode, several at a time",
    layout: Layout { region_servers: 4, ..ON_HDFS },
    faults: chaos,
};

pub(super) const SHRINKING_LOG: Scenario = Scenario {
    name: "hdfs-shrinking-log",
    about: "on HDFS: a log is sealed while two of its three DataNodes hang, then becomes shorter",
    layout: ON_HDFS,
    faults: shrinking_log,
};

fn on_hdfs(at: Duration, lasts: Duration, action: HdfsFault) -> Fault {
    Fault { at, lasts, victim: Victim::Hdfs, action: FaultAction::Hdfs(action) }
}

/// A DataNode hangs, or its process is killed. Its machine is not killed: acknowledged data is only
/// guaranteed to survive if one machine at a time loses the data that is not on its disk.
fn data_node(random: &Random, layout: Layout) -> HdfsFault {
    let outage = random.pick(&[Outage::Hang, Outage::Kill]).copied().unwrap_or(Outage::Hang);
    HdfsFault::DataNode(random.in_range(0..layout.region_servers + 1), outage)
}

fn server_crash(random: &Random, layout: Layout) -> Vec<Fault> {
    let action = if happens(random, 5) { FaultAction::KillMachine } else { FaultAction::Kill };
    let (at, lasts) = (ms(random, 300..1_200), ms(random, 500..3_000));
    let mut faults = vec![Fault { at, lasts, victim: owner(random, layout), action }];
    if happens(random, 5) {
        let (at, lasts) = (ms(random, 100..1_500), ms(random, 300..4_000));
        faults.push(on_hdfs(at, lasts, data_node(random, layout)));
    }
    faults
}

/// Two DataNodes of a log hang, and its server is killed before a sync fails on them. They return
/// once the length of the log is committed, before any process has read the log. The NameNode's
/// recovery may then close the log at the length that one of them has.
fn shrinking_log(random: &Random, layout: Layout) -> Vec<Fault> {
    let (at, lasts) = (ms(random, 300..1_200), ms(random, 9_000..14_000));
    let victim = owner(random, layout);
    let action = FaultAction::Hdfs(HdfsFault::LogNodesHang(2));
    let hanging = Fault { at, lasts, victim: victim.clone(), action };
    let killed = kill(victim, at + ms(random, 1..700), ms(random, 500..3_000));
    let answer = Answer::Wait(ms(random, 50..300));
    let sealer = Victim::Springing(Trap { point: Point::FenceRecorded, hit: 1, answer });
    let action = FaultAction::Hdfs(HdfsFault::Return);
    vec![hanging, killed, Fault { at, lasts: ms(random, 50..300), victim: sealer, action }]
}

fn name_node(random: &Random, layout: Layout) -> Vec<Fault> {
    let mut faults = vec![name_node_fault(random)];
    if happens(random, 7) {
        // Before or during the fault, or while DataNodes have not reported yet.
        let killed_at = ms(random, 300..500) + ms(random, 0..4_000);
        faults.push(kill(owner(random, layout), killed_at, ms(random, 500..2_000)));
    }
    if happens(random, 3) {
        let (at, lasts) = (ms(random, 300..2_000), ms(random, 300..3_000));
        faults.push(on_hdfs(at, lasts, data_node(random, layout)));
    }
    faults
}

fn name_node_fault(random: &Random) -> Fault {
    let safe_mode_ms = random.in_range(300..3_000);
    let actions = [
        HdfsFault::NameNodeAway,
        HdfsFault::NameNodeRestart { safe_mode_ms },
        HdfsFault::NameNodeRestart { safe_mode_ms },
        HdfsFault::SafeMode,
    ];
    let action = random.pick(&actions).copied().unwrap_or(HdfsFault::NameNodeAway);
    on_hdfs(ms(random, 500..1_500), ms(random, 300..4_000), action)
}

/// A machine that dies takes one replica of a log with it. One of the other two may fail as well: a
/// replica that has lost its end must not decide alone.
fn chaos(random: &Random, layout: Layout) -> Vec<Fault> {
    let mut faults = Vec::new();
    for _ in 0..random.in_range(1..4) {
        let mut fault = match random.in_range(0..6) {
            0 | 1 => kill(owner(random, layout), Duration::ZERO, ms(random, 300..3_000)),
            2 => kill(Victim::LastOpener, Duration::ZERO, ms(random, 300..3_000)),
            3 => kill(Victim::ActiveMaster, Duration::ZERO, ms(random, 300..3_000)),
            4 => pause::pause(random, owner(random, layout)),
            _ => partition::cut(random, owner(random, layout)),
        };
        fault.at = ms(random, 300..4_000);
        faults.push(fault);
    }
    let (at, lasts) = (ms(random, 300..3_000), ms(random, 300..4_000));
    if happens(random, 5) {
        faults.push(Fault {
            at,
            lasts,
            victim: owner(random, layout),
            action: FaultAction::KillMachine,
        });
    }
    if happens(random, 6) {
        let (at, lasts) = (ms(random, 300..3_000), ms(random, 300..4_000));
        faults.push(on_hdfs(at, lasts, data_node(random, layout)));
    }
    if happens(random, 4) {
        faults.push(name_node_fault(random));
    }
    faults
}
