//! Converts greetings to and from messages.

use bytes::Bytes;

use super::{EnsembleId, MemberFacts, Nonce, Start};
use crate::wire::{Malformed, v1};

/// A greeting from `member`, with the checkpoint of its state.
pub(super) fn to_wire(
    member: u64,
    facts: &MemberFacts,
    checkpoint: Option<v1::Checkpoint>,
    short_of_room: bool,
) -> v1::Greeting {
    v1::Greeting {
        member,
        ensemble: facts.ensemble.map(EnsembleId::to_bytes).unwrap_or_default(),
        has_data: facts.has_data,
        nonce: Bytes::copy_from_slice(&facts.nonce),
        candidate: facts.candidate.map(EnsembleId::to_bytes).unwrap_or_default(),
        counted: facts.is_counted,
        authority: facts.is_authority,
        incarnation: facts.start.incarnation,
        life: facts.start.life,
        began_with: facts.began_with,
        entries: facts.entries,
        term: facts.term,
        checkpoint,
        short_of_room,
    }
}

/// The facts in a greeting.
pub(super) fn from_wire(greeting: &v1::Greeting) -> Result<MemberFacts, Malformed> {
    let id = |bytes: &Bytes| match bytes.is_empty() {
        true => Ok(None),
        false => EnsembleId::from_bytes(bytes)
            .map(Some)
            .ok_or(Malformed::new("an ensemble id of the wrong length")),
    };
    let nonce = Nonce::try_from(greeting.nonce.as_ref());
    Ok(MemberFacts {
        ensemble: id(&greeting.ensemble)?,
        has_data: greeting.has_data,
        nonce: nonce.map_err(|_| Malformed::new("a nonce of the wrong length"))?,
        candidate: id(&greeting.candidate)?,
        is_counted: greeting.counted,
        is_authority: greeting.authority,
        start: Start { incarnation: greeting.incarnation, life: greeting.life },
        began_with: greeting.began_with,
        entries: greeting.entries,
        term: greeting.term,
    })
}
