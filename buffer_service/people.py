"""What people ask of the buffer: look at lanes, pause and resume them, replay dead letters, counts.
Every method runs inside one engine step."""

from __future__ import annotations

import itertools
from typing import Any

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from buffer_service import forgetting, wire
from buffer_service.inbox import scope_of
from buffer_service.store.identity import Identities
from buffer_service.store.sqlite import DeadLetter, SqliteStore
from buffer_service.turn_taking import TurnTaking
from buffer_service.turn_taking.entities import InboxMessage, Incoming, Lane
from service_kit import page_tokens
from service_kit.durations import ms_to_timestamp
from service_kit.errors import NotFound, WrongState

ENDED_TURNS = 20
# Of messages in one answer: clients take 4 MiB if they were not told otherwise.
ROOM_BYTES = 3 << 20
PENDING_BYTES = 1 << 20


class People:
    """The service's slow side."""

    def __init__(self, *, store: SqliteStore, turns: TurnTaking) -> None:
        self._store = store
        self._turns = turns
        self._identities = Identities(store=store, turns=turns)

    def _show(self, lane: Lane, *, ended: bool = False) -> pb.Lane:
        quiet = self._turns.policy.handoff_quiet
        view = wire.lane_to_pb(lane, pending=_first(lane.pending), worker_id=self._worker(lane), handoff_quiet=quiet)
        room = ROOM_BYTES - view.ByteSize()
        for turn in self._store.ended_turns(lane.conversation_id, ENDED_TURNS) if ended else []:
            shown = wire.turn_to_pb(turn)
            room -= shown.ByteSize()
            if room < 0:
                break
            view.ended_turns.append(shown)
        return view

    def _worker(self, lane: Lane) -> str:
        run = self._turns.runs.get(lane.turn.turn_id) if lane.turn else None
        return run.holder.worker if run and run.holder else ""

    def get_lane(self, request: pb.GetLaneRequest) -> pb.Lane:
        """One lane, followed to the one that it was merged into."""
        if request.conversation_id:
            return self._show(self._turns.lane(request.conversation_id), ended=True)
        lane = self._identities.find(scope_of(request.scope), [request.alias])
        if lane is None:
            raise NotFound("There is no such conversation.", resource="conversation")
        return self._show(lane, ended=True)

    def list_lanes(self, request: pb.ListLanesRequest, size: int) -> pb.ListLanesResponse:
        """A page of lanes."""
        tenant, states = request.tenant or "default", set(request.states)
        purpose = ["ListLanes", tenant, sorted(states)]
        position: list[Any] = page_tokens.read(purpose, request.page_token) if request.page_token else [-1, ""]
        shown: list[pb.Lane] = []
        room = ROOM_BYTES
        while len(shown) < size:
            batch = self._store.list_lanes(
                tenant, (position[0], position[1]), size + 1, idle_too=pb.LANE_STATE_IDLE in states
            )
            for lane in batch[: size + 1]:
                if len(shown) == size:
                    return pb.ListLanesResponse(lanes=shown, next_page_token=page_tokens.make(purpose, position))
                view = self._show(lane)
                if not states or view.state in states:
                    room -= view.ByteSize()
                    if shown and room < 0:
                        return pb.ListLanesResponse(lanes=shown, next_page_token=page_tokens.make(purpose, position))
                    shown.append(view)
                position = [lane.activity_at, lane.conversation_id]
            if len(batch) <= size:
                return pb.ListLanesResponse(lanes=shown)
        return pb.ListLanesResponse(lanes=shown, next_page_token=page_tokens.make(purpose, position))

    def pause(self, now: int, conversation_id: str, reason: str) -> pb.Lane:
        """A human answers."""
        return self._show(self._turns.pause(now, conversation_id, reason or "rpc"))

    def resume(self, now: int, conversation_id: str) -> pb.Lane:
        """The agent answers again."""
        lane = self._turns.resume(now, conversation_id)
        lane.needs_human = False
        return self._show(lane)

    # ---- dead letters

    def _letter(self, letter: DeadLetter) -> pb.DeadLetter:
        return wire.dead_letter_to_pb(letter, self._store.messages_of(letter.turn_id))

    def list_dead_letters(self, request: pb.ListDeadLettersRequest, size: int) -> pb.ListDeadLettersResponse:
        """A page of dead letters."""
        tenant = request.tenant or "default"
        purpose = ["ListDeadLetters", tenant, request.include_replayed]
        position: list[Any] = page_tokens.read(purpose, request.page_token) if request.page_token else [1 << 62]
        found = self._store.dead_letters(tenant, position[0], size + 1, replayed_too=request.include_replayed)
        shown: list[pb.DeadLetter] = []
        room = ROOM_BYTES
        for letter in found[:size]:
            view = self._letter(letter)
            room -= view.ByteSize()
            if shown and room < 0:
                break
            shown.append(view)
        token = page_tokens.make(purpose, [shown[-1].dead_letter_id]) if len(found) > len(shown) else ""
        return pb.ListDeadLettersResponse(dead_letters=shown, next_page_token=token)

    def replay(self, now: int, dead_letter_id: int, *, answer_stale: bool) -> pb.ReplayDeadLetterResponse:
        """Answers a dead letter again, or gives an old one to a human."""
        letter = self._store.dead_letter(dead_letter_id)
        if letter is None:
            raise NotFound("There is no such dead letter.", resource="dead_letter")
        if not letter.replayed_at:
            self._replay(now, letter, answer_stale=answer_stale)
        after = self._after_replay(letter.dead_letter_id)
        return pb.ReplayDeadLetterResponse(dead_letter=self._letter(after), handed_to_human=after.handed)

    def _replay(self, now: int, letter: DeadLetter, *, answer_stale: bool) -> None:
        lane = self._turns.lane(letter.conversation_id)
        if lane.turn and lane.turn.turn_id == letter.turn_id:
            raise WrongState("Its honest sentence is still on the way.", turn_id=letter.turn_id, state="open")
        messages = self._store.messages_of(letter.turn_id)
        newest = max((m.accepted_at for m in messages), default=0)
        handed = now - newest > self._turns.policy.stale_after and not answer_stale
        if handed:
            self._turns.pause(now, lane.conversation_id, "dead letter")
            lane.needs_human = True
        else:
            again = [
                Incoming(message_id=_replay_id(letter, m.sequence), body=m.body, provider_at=m.provider_at)
                for m in messages
            ]
            self._turns.replay(now, lane.conversation_id, again)
        turn_id = ""
        if messages and not handed:
            turn_id = self._turn_of(letter, lane, messages[0].sequence)
        self._store.mark_replayed(letter.dead_letter_id, turn_id, now, handed=handed)

    def _turn_of(self, letter: DeadLetter, lane: Lane, sequence: int) -> str:
        message_id = _replay_id(letter, sequence)
        for turn in [lane.turn] if lane.turn else []:
            if any(m.message_id == message_id for m in turn.messages):
                return turn.turn_id
        return self._store.turn_of_message(lane.scope, message_id)

    def _after_replay(self, dead_letter_id: int) -> DeadLetter:
        letter = self._store.dead_letter(dead_letter_id)
        assert letter is not None
        if not letter.replay_turn_id and not letter.handed:
            lane = self._turns.lane(letter.conversation_id)
            for message in self._store.messages_of(letter.turn_id)[:1]:
                turn_id = self._turn_of(letter, lane, message.sequence)
                if turn_id:
                    self._store.mark_replayed(dead_letter_id, turn_id, letter.replayed_at, handed=False)
                    return self._store.dead_letter(dead_letter_id) or letter
        return letter

    def forget(self, now: int, tenant: str, contact: str) -> pb.ForgetContactResponse:
        """Erases a person."""
        return forgetting.forget(self._store, self._turns, now, tenant, contact)

    # ---- counts

    def stats(self, now: int, tenant: str, last_event_at: int) -> pb.GetStatsResponse:
        """All counts."""
        found = self._store.stats(tenant)
        live = [s for s in self._turns.sessions.values() if s.connected and now - s.beat < self._turns.policy.lease]
        running = sum(len(s.held) for s in self._turns.sessions.values())
        out = pb.GetStatsResponse(
            waiting_turns=max(0, found["turns"] - running),
            running_turns=running,
            pending_messages=found["pending"],
            paused_conversations=found["paused"],
            dead_letters=found["dead_letters"],
            unrecorded_turns=found["unrecorded"],
            quarantined=found["quarantined"],
            workers=len(live),
            worker_capacity=sum(s.capacity for s in live),
            conversations=found["conversations"],
            needs_human=found["needs_human"],
            unknown_parts=found["unknown_parts"],
            counters=dict(self._turns.counters),
            strategy=self._turns.policy.strategy.value,
        )
        if found["oldest_pause"]:
            out.oldest_pause_time.CopyFrom(ms_to_timestamp(found["oldest_pause"]))
        if last_event_at:
            out.last_event_time.CopyFrom(ms_to_timestamp(last_event_at))
        return out


def _first(pending: list[InboxMessage]) -> list[InboxMessage]:
    """Of what waits, the oldest that fit."""
    sizes = itertools.accumulate(len(message.body) for message in pending)
    return [message for message, size in zip(pending, sizes, strict=True) if size <= PENDING_BYTES]


def _replay_id(letter: DeadLetter, sequence: int) -> str:
    return f"replay:{letter.dead_letter_id}:{sequence}"
