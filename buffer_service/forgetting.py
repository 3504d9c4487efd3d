"""Who a person is, and erasing them from the buffer; each is one engine step."""

from __future__ import annotations

import re
from collections.abc import Iterable

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from buffer_service.store.person_rows import Person
from buffer_service.store.sqlite import SqliteStore
from buffer_service.turn_taking import TurnTaking
from buffer_service.turn_taking.entities import Lane

_RECENT_TURNS = 20
_WITH_NINTH_DIGIT = re.compile(r"(55[1-9]{2})9([6-9]\d{7})", re.ASCII)


def forget(store: SqliteStore, turns: TurnTaking, now: int, tenant: str, contact: str) -> pb.ForgetContactResponse:
    """Takes a running turn away, deletes all that is known of the person, and leaves a tombstone per conversation."""
    person = find(store, turns, tenant, contact)
    messages = 0
    for conversation_id in person.conversation_ids:
        lane = turns.raw(conversation_id)
        turns.forget(now, lane, said=_just_said(store, turns, now, lane))
        messages += store.erase(conversation_id)
    store.leave_tombstones(tenant, person.conversation_ids, now)
    store.erase_quarantine(tenant, person.names)
    return pb.ForgetContactResponse(conversation_ids=person.conversation_ids, messages=messages)


def find(store: SqliteStore, turns: TurnTaking, tenant: str, contact: str) -> Person:
    """Who is meant: the same for an erasure and for an export."""
    alias = contact if ":" in contact else f"phone:{contact}"
    ids = store.conversations_of_person(tenant, alias)
    names = set(names_in_bodies([alias]))
    for conversation_id in ids:
        lane = turns.raw(conversation_id)
        names.update(names_in_bodies([*lane.aliases, lane.address]))
    return Person(tenant=tenant, conversation_ids=tuple(ids), names=tuple(sorted(names)))


def names_in_bodies(names: Iterable[str]) -> Iterable[str]:
    """How a provider's raw body may name somebody whom we know by these aliases and addresses: without a prefix or a
    server, and a Brazilian mobile also without its ninth digit."""
    for name in names:
        plain = name.rpartition(":")[2].partition("@")[0]
        if not plain:
            continue
        yield plain
        brazilian = _WITH_NINTH_DIGIT.fullmatch(plain)
        if brazilian:
            yield brazilian[1] + brazilian[2]


def _just_said(store: SqliteStore, turns: TurnTaking, now: int, lane: Lane) -> Iterable[str]:
    """Texts of ended turns that the provider may still echo."""
    since = now - turns.policy.evidence
    for turn in store.ended_turns(lane.conversation_id, _RECENT_TURNS):
        yield from (part.text for part in turn.parts if part.closed_at >= since)
