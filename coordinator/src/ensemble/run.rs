//! Greets the other members, decides based on their greetings, and carries out the decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future;
use openraft::error::{InitializeError, RaftError};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Code;

use super::census::{self, Decision, Obstacle};
use super::roll::Judgement;
use super::{EnsembleId, Heard, MemberFacts, Record, RecordStore, Start, greeting, majority};
use crate::agreement::Agreement;
use crate::error::Error;
use crate::member::Member;
use crate::room::{ROOM_PAUSE, RoomWait};
use crate::server::hand_over;
use crate::wire::{self, v1};

/// What a member knows about itself and about the others.
pub(crate) struct Standing {
    record: Mutex<Record>,
    life: u64,
    began_with: Mutex<u64>,
    candidate: Mutex<Option<EnsembleId>>,
    heard: Mutex<BTreeMap<u64, (Heard, Instant)>>,
    /// The members that have confirmed that this start has all the data that it should have.
    cleared: Mutex<BTreeSet<u64>>,
    /// Whether another member has reported that it does not.
    is_outdated: AtomicBool,
    /// Whether the record has a change that must be written at once.
    must_save: AtomicBool,
    /// The members whose current start is not in the record on disk yet.
    unrecorded: Mutex<BTreeSet<u64>>,
    /// Whether the record could not be saved because the disk is full.
    is_disk_full: AtomicBool,
    /// Changes when there is something that the others should learn.
    changed: watch::Sender<u64>,
}

/// The interval of greetings while it is not settled who takes part.
const UNSETTLED_INTERVAL: Duration = Duration::from_millis(20);
/// The interval of greetings otherwise.
const SETTLED_INTERVAL: Duration = Duration::from_millis(500);
/// Facts that were reported longer ago do not count.
const HEARD_FOR: Duration = Duration::from_secs(3);
/// How often the progress of the others' logs is written to disk.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);
/// How often a member logs what it waits for, and how long it waits before it does so first.
const OBSTACLE_INTERVAL: Duration = Duration::from_secs(10);
const OBSTACLE_PAUSE: Duration = Duration::from_secs(2);

// === impl Standing ===

impl Standing {
    /// The standing at a start with `life`, whose log has `began_with` entries, purged ones
    /// included.
    pub(crate) fn new(record: Record, life: u64, began_with: u64) -> Self {
        Self {
            record: Mutex::new(record),
            life,
            began_with: Mutex::new(began_with),
            candidate: Mutex::default(),
            heard: Mutex::default(),
            cleared: Mutex::default(),
            is_outdated: AtomicBool::new(false),
            must_save: AtomicBool::new(false),
            unrecorded: Mutex::default(),
            is_disk_full: AtomicBool::new(false),
            changed: watch::Sender::new(0),
        }
    }

    /// Whether enough others have confirmed that this start has all the data that it should have.
    pub(crate) fn is_cleared(&self, members: usize) -> bool {
        self.cleared.lock().len() + 1 >= majority(members)
    }

    /// Records the facts that `peer` has reported. Returns the answer.
    pub(super) fn heard(&self, member: &Member, peer: u64, facts: MemberFacts) -> Judgement {
        let ensemble = member.ensemble.id();
        let mut judgement = Judgement { is_outdated: false, incarnation: 0, is_new: false };
        if ensemble.is_some() && facts.ensemble == ensemble {
            let committed = committed_entries(member);
            judgement = self.record.lock().roll.judge(peer, &facts, committed);
            if judgement.is_new {
                self.must_save.store(true, Ordering::Relaxed);
                self.unrecorded.lock().insert(peer);
            }
            if judgement.is_outdated {
                tracing::warn!(peer, "this member has less data than it had: it must catch up");
            }
        }
        self.note(peer, Heard::Facts(facts));
        judgement
    }

    /// Whether this member must not confirm yet that the start of `peer` has all the data that it
    /// should have. The disk is full, so this member would forget that start if it ended.
    pub(super) fn must_record_first(&self, peer: u64) -> bool {
        self.is_disk_full.load(Ordering::Relaxed) && self.unrecorded.lock().contains(&peer)
    }

    fn note(&self, peer: u64, heard: Heard) {
        let before = self.heard.lock().insert(peer, (heard.clone(), Instant::now()));
        if before.is_none_or(|(before, _)| is_news(&before, &heard)) {
            self.notify();
        }
    }

    /// Wakes the tasks that greet and decide, so that the others learn of the change at once.
    fn notify(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// What each other member has reported lately.
    fn lately(&self, member: &Member) -> BTreeMap<u64, Heard> {
        let heard = self.heard.lock();
        let others = member.config.members.keys().filter(|other| **other != member.id());
        others
            .map(|other| {
                let lately = heard.get(other).filter(|(_, at)| at.elapsed() <= HEARD_FOR);
                (*other, lately.map(|(heard, _)| heard.clone()).unwrap_or_default())
            })
            .collect()
    }

    /// What this member reports about itself.
    fn facts(&self, member: &Member) -> MemberFacts {
        let term = member.log.term();
        let record = self.record.lock();
        MemberFacts {
            ensemble: member.ensemble.id(),
            has_data: member.ensemble.takes_part(),
            nonce: record.nonce,
            candidate: *self.candidate.lock(),
            is_counted: member.rejoin.is_caught_up(),
            is_authority: record.is_authority,
            start: Start { incarnation: record.incarnation, life: self.life },
            began_with: *self.began_with.lock(),
            entries: member.log.durable_entries(),
            term,
        }
    }

    /// Handles the answer of `peer` to a greeting.
    fn answered(&self, member: &Member, peer: u64, answer: v1::GreetingAnswer) {
        if !member.ensemble.takes_part() {
            return;
        }
        if answer.outdated && member.rejoin.is_caught_up() {
            self.is_outdated.store(true, Ordering::Relaxed);
            self.notify();
            return;
        }
        if !member.rejoin.is_caught_up() {
            let mut record = self.record.lock();
            if answer.incarnation >= record.incarnation {
                record.incarnation = answer.incarnation.saturating_add(1);
                self.must_save.store(true, Ordering::Relaxed);
            }
            return;
        }
        if self.cleared.lock().insert(peer) {
            self.notify();
        }
    }
}

/// Whether this member takes part, and its state has been compared with the others' states.
fn is_settled(member: &Member) -> bool {
    member.ensemble.takes_part()
        && member.rejoin.is_caught_up()
        && member.state_is_compared.load(Ordering::Relaxed)
}

/// Whether the change is a reason to greet the others at once.
fn is_news(before: &Heard, now: &Heard) -> bool {
    let (Heard::Facts(before), Heard::Facts(now)) = (before, now) else {
        return before != now;
    };
    let said = |facts: &MemberFacts| {
        (
            facts.ensemble,
            facts.has_data,
            facts.nonce,
            facts.candidate,
            facts.is_counted,
            facts.start,
        )
    };
    said(before) != said(now)
}

fn committed_entries(member: &Member) -> u64 {
    u64::try_from(member.replica.applied().0).unwrap_or(0).saturating_add(1)
}

/// Greets the others and takes part as far as their greetings allow, for ever.
///
/// # Errors
/// The record cannot be written, or consensus has stopped.
pub(crate) async fn run(member: &Member, store: RecordStore) -> Result<(), Error> {
    let others = member.config.members.keys().filter(|other| **other != member.id());
    let greetings = others.map(|other| greet(member, *other));
    let decisions = Decider::new(member, store);
    tokio::select! {
        biased;
        decided = decisions.run() => decided,
        _ = future::join(future::join_all(greetings), future::pending::<()>()) => Ok(()),
    }
}

/// Greets `peer` for ever.
async fn greet(member: &Member, peer: u64) {
    let standing = &member.standing;
    let mut changes = standing.changed.subscribe();
    loop {
        changes.mark_unchanged();
        let checkpoint = member.replica.checkpoint();
        let (facts, is_short) = (standing.facts(member), member.log.room().is_for_leases());
        let greeting = greeting::to_wire(member.id(), &facts, checkpoint, is_short);
        let answer = member.peers.greet(peer, greeting).await;
        let is_away = answer.as_ref().is_err_and(|status| status.code() != Code::Unimplemented);
        match is_away {
            true => member.unreachable.lock().insert(peer),
            false => member.unreachable.lock().remove(&peer),
        };
        match answer {
            Ok(answer) => standing.answered(member, peer, answer),
            Err(status) if status.code() == Code::Unimplemented => {
                standing.note(peer, Heard::EarlierRelease);
                if standing.cleared.lock().insert(peer) {
                    standing.notify();
                }
            }
            Err(_) => {}
        }
        let is_settled = is_settled(member) && standing.is_cleared(member.config.members.len());
        let interval = if is_settled { SETTLED_INTERVAL } else { UNSETTLED_INTERVAL };
        tokio::select! {
            biased;
            // The sender lives as long as this member.
            _ = changes.changed() => {}
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// Carries out decisions.
struct Decider<'a> {
    member: &'a Member,
    store: RecordStore,
    began: Instant,
    saved: Option<Record>,
    last_saved: Instant,
    last_logged: Option<Instant>,
    is_initialized: bool,
    agreement: Agreement,
}

// === impl Decider ===

impl<'a> Decider<'a> {
    fn new(member: &'a Member, store: RecordStore) -> Self {
        let began = Instant::now();
        Self {
            member,
            store,
            began,
            saved: None,
            last_saved: began,
            last_logged: None,
            is_initialized: false,
            agreement: Agreement::default(),
        }
    }

    async fn run(mut self) -> Result<(), Error> {
        let member = self.member;
        let mut changes = member.standing.changed.subscribe();
        loop {
            changes.mark_unchanged();
            self.step().await?;
            let interval = if is_settled(member) { SETTLED_INTERVAL } else { UNSETTLED_INTERVAL };
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                () = member.rejoin.caught_up(&member.replica) => self.count_again().await?,
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    async fn step(&mut self) -> Result<(), Error> {
        let member = self.member;
        let standing = &member.standing;
        if standing.is_outdated.swap(false, Ordering::Relaxed) && member.rejoin.is_caught_up() {
            tracing::warn!(
                "this folder is an older copy: another member has seen a newer state of it. This \
                 member does not vote until it has caught up"
            );
            member.rejoin.begin().await?;
            standing.cleared.lock().clear();
        }
        let (own, peers) = (standing.facts(member), standing.lately(member));
        let candidate = census::candidate(member.id(), &own, &peers);
        if std::mem::replace(&mut *standing.candidate.lock(), candidate) != candidate {
            standing.notify();
        }
        let own = MemberFacts { candidate, ..own };
        match census::decide(member.id(), &own, &peers) {
            Decision::Stay => {}
            Decision::Form(id) => self.form(id).await?,
            Decision::Join { ensemble, floor, authority } => {
                self.join(ensemble, floor, authority).await?;
            }
            Decision::JoinEarlierRelease => {
                if !member.ensemble.takes_part() {
                    member.rejoin.begin().await?;
                    member.ensemble.take_part();
                }
                member.rejoin.admit(0, None);
            }
            Decision::Wait(obstacle) => self.say(&obstacle),
        }
        self.name_ensemble(&peers).await?;
        self.take_part().await?;
        self.agreement.check(member, &peers);
        self.save_if_needed().await
    }

    async fn form(&mut self, id: EnsembleId) -> Result<(), Error> {
        self.member.rejoin.settle().await?;
        self.belong_to(id, true).await?;
        tracing::info!(ensemble = ?id, "the members have formed an ensemble");
        Ok(())
    }

    async fn join(
        &mut self,
        id: EnsembleId,
        floor: u64,
        authority: Option<u64>,
    ) -> Result<(), Error> {
        let member = self.member;
        if member.ensemble.id() != Some(id) {
            // This comes first, so that the member never votes before it has caught up.
            member.rejoin.begin().await?;
            self.belong_to(id, false).await?;
        }
        if !member.rejoin.is_admitted() {
            tracing::info!(ensemble = ?id, floor, authority, "participating as a learner");
            member.rejoin.admit(floor, authority);
        }
        Ok(())
    }

    async fn belong_to(&mut self, id: EnsembleId, is_strict: bool) -> Result<(), Error> {
        {
            let mut record = self.member.standing.record.lock();
            record.ensemble = Some(id);
            record.is_strict = is_strict;
        }
        self.save().await?;
        let begun = self.member.log.begin_ensemble(id).await;
        begun.map_err(|error| Error::Consensus { problem: error.to_string() })?;
        self.member.ensemble.set(id, is_strict);
        self.member.standing.notify();
        Ok(())
    }

    /// Assigns an id to an ensemble of an earlier release, and demands it once all peers know it.
    /// Ends the authority of this member's data once a majority of the members counts.
    async fn name_ensemble(&mut self, peers: &BTreeMap<u64, Heard>) -> Result<(), Error> {
        let member = self.member;
        let ensemble = &member.ensemble;
        if ensemble.id().is_none() && ensemble.takes_part() {
            let secret = self.member.replica.read(|state, _| state.secret().copied());
            if let Some(secret) = secret {
                self.belong_to(EnsembleId::of_secret(&secret), false).await?;
            }
        }
        if let Some(id) = ensemble.id()
            && !ensemble.is_strict()
            && peers
                .values()
                .all(|heard| matches!(heard, Heard::Facts(facts) if facts.ensemble == Some(id)))
        {
            self.member.standing.record.lock().is_strict = true;
            self.save().await?;
            ensemble.set(id, true);
        }
        let counted = peers.values().filter(|heard| match heard {
            Heard::Facts(facts) => facts.ensemble == ensemble.id() && facts.is_counted,
            _ => false,
        });
        let is_majority = counted.count() + 1 >= majority(peers.len() + 1);
        let mut is_over = false;
        {
            let mut record = self.member.standing.record.lock();
            if record.is_authority && is_majority && !peers.is_empty() {
                record.is_authority = false;
                is_over = true;
            }
        }
        if is_over { self.save().await } else { Ok(()) }
    }

    /// Initializes consensus if that has not happened yet. Lets this member stand for election only
    /// if it counts, the others have cleared it, and nothing keeps it from leading.
    async fn take_part(&mut self) -> Result<(), Error> {
        let member = self.member;
        let is_counted = member.ensemble.takes_part() && member.rejoin.is_caught_up();
        if is_counted && !self.is_initialized {
            initialize(member).await?;
            self.is_initialized = true;
        }
        let is_cleared = member.standing.is_cleared(member.config.members.len());
        let must_not_lead = self.agreement.differs() || member.log.room().is_used_up();
        member.raft.runtime_config().elect(is_counted && is_cleared && !must_not_lead);
        if must_not_lead && member.leads() {
            // The next leader is a member that may stand for election.
            hand_over(member).await;
        }
        Ok(())
    }

    /// Makes this member count from now on, after it has caught up. It reports the data that it has
    /// now.
    async fn count_again(&mut self) -> Result<(), Error> {
        let standing = &self.member.standing;
        *standing.began_with.lock() = self.member.log.durable_entries();
        standing.record.lock().incarnation += 1;
        self.save().await?;
        self.member.rejoin.settle().await?;
        standing.notify();
        Ok(())
    }

    fn say(&mut self, obstacle: &Obstacle) {
        let is_due = match self.last_logged {
            Some(last) => last.elapsed() >= OBSTACLE_INTERVAL,
            None => self.began.elapsed() >= OBSTACLE_PAUSE,
        };
        if is_due {
            self.last_logged = Some(Instant::now());
            tracing::error!("not serving: {obstacle}");
        }
    }

    /// Saves what is known about the others from time to time. Nothing waits for it, so a full disk
    /// only delays it.
    async fn save_if_needed(&mut self) -> Result<(), Error> {
        let standing = &self.member.standing;
        let interval = match standing.is_disk_full.load(Ordering::Relaxed) {
            true => ROOM_PAUSE,
            false if standing.must_save.load(Ordering::Relaxed) => Duration::ZERO,
            false => SAVE_INTERVAL,
        };
        if self.last_saved.elapsed() < interval {
            return Ok(());
        }
        match self.try_save().await {
            Err(error) if error.is_storage_full() => Ok(()),
            saved => Ok(saved?),
        }
    }

    /// Saves the record, and waits until the disk has room for it.
    async fn save(&mut self) -> Result<(), Error> {
        let mut wait = RoomWait::new("the record of the ensemble");
        while let Err(error) = self.try_save().await {
            wait.after(error).await?;
        }
        Ok(())
    }

    async fn try_save(&mut self) -> basalt_fs::Result<()> {
        let standing = &self.member.standing;
        let must = standing.must_save.swap(false, Ordering::Relaxed);
        let recorded = standing.unrecorded.lock().clone();
        let record = standing.record.lock().clone();
        self.last_saved = Instant::now();
        if self.saved.as_ref() != Some(&record) {
            let saved = self.store.try_save(&record).await;
            let is_full = saved.as_ref().is_err_and(basalt_fs::Error::is_storage_full);
            standing.is_disk_full.store(is_full, Ordering::Relaxed);
            if is_full && must {
                standing.must_save.store(true, Ordering::Relaxed);
            }
            saved?;
            self.saved = Some(record);
        }
        standing.unrecorded.lock().retain(|peer| !recorded.contains(peer));
        Ok(())
    }
}

/// Initializes consensus with all configured members, after this member has formed an ensemble. All
/// members do this with the same first entry, and the vote decides who leads.
async fn initialize(member: &Member) -> Result<(), Error> {
    let stopped = |error: &dyn std::fmt::Display| Error::Consensus { problem: error.to_string() };
    if member.raft.is_initialized().await.map_err(|error| stopped(&error))? {
        return Ok(());
    }
    let members = wire::nodes(member.config.members.keys().copied());
    match member.raft.initialize(members).await {
        Ok(()) => Ok(()),
        // Another member was faster, and its entry arrived first.
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(stopped(&error)),
    }
}
