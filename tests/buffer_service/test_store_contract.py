"""What every store of the buffer has to do. A second store joins by adding its home to STORES in stores.py."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from buffer_service.store.sqlite import SqliteStore
from buffer_service.turn_taking.entities import (
    Echo,
    EndReason,
    Incoming,
    Lane,
    Part,
    PartState,
    Pause,
    Scope,
    Turn,
    TurnKind,
)
from buffer_service.turn_taking.ports import UnknownConversation
from tests.buffer_service.broken_stores import BROKEN
from tests.buffer_service.stores import STORES, BufferStore, Home, SqliteHome

HERE = Scope("default", "test", "one")
THERE = Scope("other", "test", "one")
T0 = 1_000_000
ALL = 1 << 62


@pytest.fixture(params=STORES.values(), ids=STORES.keys())
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    opened: Home = request.param(tmp_path)
    yield opened
    opened.kill()


class Undo(Exception):
    """A step went wrong."""


class Desk:
    """One process with a store open, and shorthands for what the core does with it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.store: BufferStore = home.open()
        self.ids = itertools.count(1)

    @contextmanager
    def step(self) -> Iterator[BufferStore]:
        with self.store.transaction(), self.store.step():
            yield self.store

    def restart(self) -> None:
        self.store.close()
        self.store = self.home.open()

    def killed(self) -> None:
        self.home.kill()
        self.store = self.home.open()

    def new_lane(self, *aliases: str, now: int = T0, scope: Scope = HERE) -> str:
        with self.step() as store:
            lane = store.create_lane(scope, now)
            store.add_aliases(lane, aliases)
            lane.aliases, lane.activity_at = aliases, now
            return lane.conversation_id

    def write(self, lane: Lane, message_id: str = "", body: bytes = b"oi", **more: bool) -> Any:
        incoming = Incoming(message_id=message_id or f"m{next(self.ids)}", body=body, provider_at=7, **more)
        return self.store.new_message(lane, incoming, T0)

    def open_turn(self, lane: Lane, *parts: Part, **attributes: Any) -> Turn:
        message = self.write(lane)
        turn = Turn(
            number=self.store.next_number(),
            turn_id=self.store.new_turn_id(),
            conversation_id=lane.conversation_id,
            kind=TurnKind.ANSWER,
            messages=[message],
            opened_at=T0,
            parts=list(parts),
        )
        for name, value in attributes.items():
            setattr(turn, name, value)
        message.turn_id = turn.turn_id
        self.store.add_turn(turn)
        lane.turn = turn
        return turn

    def end(self, lane: Lane, turn: Turn, *, at: int = T0, recorded: bool = False) -> Turn:
        turn.ended_at, turn.ended_no, turn.end_reason = at, self.store.next_number(), EndReason.FINISHED
        turn.recorded = recorded
        lane.unrecorded += not recorded
        lane.turn = None
        return turn

    def ended(self, lane: Lane, *parts: Part, at: int = T0, recorded: bool = False, **more: Any) -> str:
        return self.end(lane, self.open_turn(lane, *parts, **more), at=at, recorded=recorded).turn_id


def sent(text: str = "olá", provider: str = "") -> Part:
    return Part(text, PartState.SENT, 1, provider, T0)


def unknown(text: str = "olá", at: int = T0) -> Part:
    return Part(text, PartState.UNKNOWN, 3, "", at)


def letters(store: BufferStore, tenant: str = "default", *, replayed_too: bool = False) -> list[Any]:
    return store.dead_letters(tenant, ALL, 99, replayed_too=replayed_too)


class TestTransactions:
    def test_a_killed_process_loses_nothing_that_was_committed(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane("phone:1")
        desk.killed()
        with desk.step() as store:
            assert store.lane(name).aliases == ("phone:1",)
            assert store.conversations_of(HERE, ["phone:1"]) == [name]

    def test_a_killed_process_leaves_nothing_of_an_open_transaction(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        with suppress(Exception), desk.store.transaction():
            with desk.store.step():
                desk.open_turn(desk.store.lane(name))
            home.kill()
            raise Undo
        desk.store = home.open()
        with desk.step() as store:
            assert store.lane(name).turn is None
            assert not store.seen(HERE, "m1")

    def test_a_step_that_fails_leaves_nothing_and_the_steps_around_it_stay(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        with desk.store.transaction():
            with desk.store.step():
                desk.write(desk.store.lane(name), "before")
            live = (desk.store.live_messages, desk.store.live_bytes)
            with pytest.raises(Undo), desk.store.step():
                lane = desk.store.lane(name)
                turn = desk.open_turn(lane, Part("a"))
                desk.store.bury(turn, "attempts", T0)
                desk.store.quarantine(HERE, "?", b"x", T0)
                desk.store.create_lane(HERE, T0)
                desk.store.add_aliases(lane, ["phone:1"])
                lane.needs_human = True
                desk.store.ended_turns(name, 9)
                raise Undo
            assert (desk.store.live_messages, desk.store.live_bytes) == live
            with desk.store.step():
                desk.write(desk.store.lane(name), "after")
        for _ in range(2):
            with desk.step() as store:
                lane = store.lane(name)
                assert (lane.turn, lane.needs_human) == (None, False)
                assert store.seen(HERE, "before") and store.seen(HERE, "after") and not store.seen(HERE, "m1")
                assert letters(store) == [] and store.conversations_of(HERE, ["phone:1"]) == []
                stats = store.stats("")
                assert (stats["conversations"], stats["quarantined"], stats["turns"]) == (1, 0, 0)
            desk.restart()

    def test_a_transaction_that_fails_leaves_nothing_of_any_step(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        with pytest.raises(Undo), desk.store.transaction():
            with desk.store.step():
                desk.store.lane(name).contact = "1"
            raise Undo
        with desk.step() as store:
            assert store.lane(name).contact == ""

    def test_erasing_is_undone_too(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane("phone:1")
        with desk.step() as store:
            turn_id = desk.ended(store.lane(name), sent())
        live = (desk.store.live_messages, desk.store.live_bytes)
        with pytest.raises(Undo), desk.store.transaction():
            with pytest.raises(Undo), desk.store.step():
                desk.store.erase(name)
                raise Undo
            with desk.store.step():
                assert [t.turn_id for t in desk.store.ended_turns(name, 9)] == [turn_id]
            raise Undo
        assert (desk.store.live_messages, desk.store.live_bytes) == live
        with desk.step() as store:
            assert store.conversations_of(HERE, ["phone:1"]) == [name]


class TestAttributes:
    """Every attribute of every entity; a new one joins by itself, because its default is changed here by its type."""

    SKIPPED: ClassVar = {
        "conversation_id",
        "scope",
        "created_at",
        "turn",
        "pending",
        "echoes",
        "turn_id",
        "number",
        "messages",
    }
    SPECIAL: ClassVar = {
        "pause": Pause(T0, T0 + 5, "rpc"),
        "kind": TurnKind.APOLOGY,
        "end_reason": EndReason.PAUSED,
        "effects": (b"", b"\x00\n", b"two"),
        "aliases": ("phone:1", "lid:2"),
        "waits_for": ("x", "y"),
        "parts": [Part("a\nb", PartState.SENT, 4, "wa1", T0), Part("c", PartState.REFUSED, 5, "", T0 + 1)],
    }

    def _changed(self, entity: Any) -> dict[str, Any]:
        numbers = itertools.count(1 << 40)
        for field in dataclasses.fields(entity):
            if field.name in self.SKIPPED:
                continue
            old = getattr(entity, field.name)
            new: Any = self.SPECIAL.get(field.name)
            if new is None:
                new = {bool: not old, int: next(numbers), str: f"{field.name} ü"}[type(old)]
            setattr(entity, field.name, new)
        return {f.name: getattr(entity, f.name) for f in dataclasses.fields(entity) if f.name not in self.SKIPPED}

    def test_a_lane_keeps_every_attribute(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane(now=T0 + 9)
        with desk.step() as store:
            expected = self._changed(store.lane(name))
        desk.restart()
        with desk.step() as store:
            lane = store.lane(name)
            assert {k: getattr(lane, k) for k in expected} == expected
            assert (lane.conversation_id, lane.scope, lane.created_at) == (name, HERE, T0 + 9)
            lane.pause, lane.aliases, lane.waits_for = None, (), ()
        desk.restart()
        with desk.step() as store:
            assert (store.lane(name).pause, store.lane(name).aliases, store.lane(name).waits_for) == (None, (), ())

    @pytest.mark.parametrize("running", [True, False])
    def test_a_turn_keeps_every_attribute(self, home: Home, running: bool) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        with desk.step() as store:
            turn = desk.open_turn(store.lane(name))
            number = turn.number
        with desk.step() as store:
            lane = store.lane(name)
            turn = store.turn(turn.turn_id)
            expected = self._changed(turn)
            if running:
                turn.ended_no = expected["ended_no"] = 0
            else:
                lane.turn = None
        desk.restart()
        with desk.step() as store:
            kept = store.lane(name).turn if running else store.ended_turns(name, 1)[0]
            assert kept is not None
            assert {k: getattr(kept, k) for k in expected} == expected
            assert (kept.number, kept.conversation_id, kept.opened_at) == (number, name, turn.opened_at)

    def test_messages_echoes_and_what_waits_keep_theirs(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        late = Incoming(message_id="e2", body=b"\x00\xff", provider_at=9, human=True)
        early = Incoming(message_id="e1", body=b"", provider_at=8, human=True)
        with desk.step() as store:
            lane = store.lane(name)
            lane.pending = [desk.write(lane, "a", b"\x00", human=True), desk.write(lane, "b", record_only=True)]
            lane.echoes = [Echo("late", T0, late), Echo("early", T0, early)]
            expected = [dataclasses.replace(m) for m in lane.pending]
        desk.restart()
        with desk.step() as store:
            lane = store.lane(name)
            assert lane.pending == expected
            assert lane.echoes == [Echo("late", T0, late), Echo("early", T0, early)]
            lane.echoes = [Echo("other", T0, late), Echo("early", T0, early)]
            lane.pending[0].record_only = True
        with desk.step() as store:
            lane = store.lane(name)
            assert [e.text for e in lane.echoes] == ["other", "early"]
            assert [m.record_only for m in lane.pending] == [True, True]
            lane.echoes = []
        with desk.step() as store:
            assert store.lane(name).echoes == []

    def test_parts_can_change_grow_and_go(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        texts = []
        with desk.step() as store:
            desk.open_turn(store.lane(name), Part("a"), Part("b"))
        for change in ("grow", "change", "shrink"):
            with desk.step() as store:
                turn = store.lane(name).turn
                assert turn is not None
                if change == "grow":
                    turn.parts = [*turn.parts, Part("c")]
                elif change == "change":
                    turn.parts[1].state, turn.parts[1].text = PartState.ATTEMPTING, "B"
                else:
                    turn.parts = [turn.parts[1]]
                texts.append([(p.text, p.state) for p in turn.parts])
            desk.restart()
            with desk.step() as store:
                turn = store.lane(name).turn
                assert turn is not None
                assert [(p.text, p.state) for p in turn.parts] == texts[-1]


class TestLanes:
    def test_an_unknown_conversation_is_unknown(self, home: Home) -> None:
        desk = Desk(home)
        with desk.step() as store, pytest.raises(UnknownConversation):
            store.lane("nobody")
        with desk.step() as store, pytest.raises(KeyError):
            store.turn("none")

    def test_one_step_sees_one_entity(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        with desk.step() as store:
            turn = desk.open_turn(store.lane(name))
            assert store.lane(name) is store.lane(name)
            assert store.turn(turn.turn_id) is turn
        with desk.step() as store:
            lane = store.lane(name)
            assert lane.turn is store.turn(turn.turn_id)
            assert lane is store.list_lanes("default", (-1, ""), 9, idle_too=False)[0]

    def test_live_lanes_are_those_with_something_to_do(self, home: Home) -> None:
        desk = Desk(home)
        idle, *live = [desk.new_lane(now=T0 + at) for at in (0, 5, 4, 3, 2, 1)]
        with desk.step() as store:
            lanes = [store.lane(name) for name in live]
            desk.open_turn(lanes[0])
            lanes[1].pending = [desk.write(lanes[1])]
            desk.ended(lanes[2])
            lanes[3].pause = Pause(T0, T0, "rpc")
            incoming = Incoming(message_id="e", body=b"", provider_at=0, human=True)
            lanes[4].echoes = [Echo("x", T0, incoming)]
            desk.ended(store.lane(idle), recorded=True)
        desk.restart()
        with desk.step() as store:
            assert store.live_lanes() == live[::-1]

    def test_merged_lanes_are_found_directly_or_not(self, home: Home) -> None:
        desk = Desk(home)
        a, b, c, other = (desk.new_lane(now=T0 + n) for n in range(4))
        with desk.step() as store:
            store.lane(c).merged_into = b
            store.lane(b).merged_into = a
            # In the very step that merged them, too.
            assert sorted(store.merged_into(store.lane(a))) == sorted([b, c])
        with desk.step() as store:
            assert sorted(store.merged_into(store.lane(a))) == sorted([b, c])
            assert store.merged_into(store.lane(b)) == [c]
            assert store.merged_into(store.lane(other)) == []

    def test_moved_messages_wait_in_their_new_lane_in_the_order_of_acceptance(self, home: Home) -> None:
        desk = Desk(home)
        a, b = desk.new_lane(), desk.new_lane(now=T0 + 1)
        with desk.step() as store:
            older, younger = store.lane(a), store.lane(b)
            older.pending = [desk.write(older, "1"), desk.write(older, "4")]
            younger.pending = [desk.write(younger, "2"), desk.write(younger, "3")]
        with desk.step() as store:
            older, younger = store.lane(a), store.lane(b)
            for message in younger.pending:
                message.conversation_id = a
            older.pending, younger.pending = [*older.pending, *younger.pending], []
            older.pending.sort(key=lambda m: m.sequence)
        desk.restart()
        with desk.step() as store:
            assert [m.message_id for m in store.lane(a).pending] == ["1", "4", "2", "3"]
            assert store.lane(b).pending == []
            assert store.erase(b) == 0

    def test_numbers_rise_over_restarts_and_failed_steps(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        with desk.step() as store:
            desk.ended(store.lane(name))
            highest = store.ended_turns(name, 1)[0].ended_no
        for _ in range(2):
            desk.restart()
            with desk.step() as store:
                number = store.next_number()
                assert number > highest
            with suppress(Undo), desk.step() as store:
                desk.ended(store.lane(name))
                raise Undo
            with desk.step() as store:
                assert store.next_number() > number
        with desk.step() as store:
            assert len({store.new_turn_id() for _ in range(9)}) == 9


class TestDeduplication:
    def test_a_scope_takes_a_message_once(self, home: Home) -> None:
        desk = Desk(home)
        name, second = desk.new_lane(), desk.new_lane()
        elsewhere = [desk.new_lane(scope=s) for s in (Scope("o", "test", "one"), Scope("default", "test", "two"))]
        elsewhere.append(desk.new_lane(scope=Scope("default", "other", "one")))
        with desk.step() as store:
            lane = store.lane(name)
            lane.pending = [desk.write(lane, "a", b"first")]
            assert desk.write(lane, "a") is None
            assert store.seen(HERE, "a") and not store.seen(HERE, "b")
        desk.restart()
        live = desk.store.live_messages
        with desk.step() as store:
            assert store.seen(HERE, "a")
            assert desk.write(store.lane(name), "a") is None
            assert desk.write(store.lane(second), "a") is None
            assert store.lane(name).pending[0].body == b"first"
            assert desk.store.live_messages == live
            assert not any(store.seen(store.lane(other).scope, "a") for other in elsewhere)
            assert all(desk.write(store.lane(other), "a") for other in elsewhere)

    def test_a_message_of_a_failed_step_may_come_again(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        with pytest.raises(Undo), desk.step() as store:
            assert desk.write(store.lane(name), "a")
            raise Undo
        with desk.step() as store:
            assert not store.seen(HERE, "a")
            assert desk.write(store.lane(name), "a")

    def test_sequences_tell_the_order_of_acceptance(self, home: Home) -> None:
        desk = Desk(home)
        names = [desk.new_lane(), desk.new_lane()]
        sequences = []
        for n in range(6):
            with desk.step() as store:
                lane = store.lane(names[n % 2])
                message = desk.write(lane, f"{9 - n}")
                lane.pending = [*lane.pending, message]
                sequences.append(message.sequence)
            if n % 2:
                desk.restart()
        assert sequences == sorted(set(sequences))
        with desk.step() as store:
            assert [m.message_id for m in store.lane(names[0]).pending] == ["9", "7", "5"]

    def test_the_turn_of_a_message(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        with desk.step() as store:
            turn = desk.open_turn(store.lane(name))
            assert store.turn_of_message(HERE, "m1") == turn.turn_id
            assert [m.message_id for m in store.messages_of(turn.turn_id)] == ["m1"]
        with desk.step() as store:
            lane = store.lane(name)
            lane.pending = [desk.write(lane, "w")]
            assert store.turn_of_message(HERE, "m1") == turn.turn_id
            assert [m.message_id for m in store.messages_of(turn.turn_id)] == ["m1"]
            assert [store.turn_of_message(HERE, "w"), store.turn_of_message(HERE, "never")] == ["", ""]


class TestIdentity:
    def test_the_oldest_conversation_comes_first(self, home: Home) -> None:
        desk = Desk(home)
        young, old = desk.new_lane("a", now=T0 + 1), desk.new_lane("b", "c", now=T0)
        with desk.step() as store:
            assert store.conversations_of(HERE, ["a", "b", "c", "d"]) == [old, young]
            assert store.conversations_of(HERE, ["d"]) == []
            assert store.conversations_of(Scope("default", "test", "two"), ["a"]) == []

    def test_a_conversation_made_in_this_step_is_not_the_oldest(self, home: Home) -> None:
        desk = Desk(home)
        old = desk.new_lane("a")
        with desk.step() as store:
            lane = store.create_lane(HERE, T0 + 1)
            store.add_aliases(lane, ["b"])
            assert store.conversations_of(HERE, ["a", "b"]) == [old, lane.conversation_id]

    def test_names_move_to_the_older_conversation(self, home: Home) -> None:
        desk = Desk(home)
        old, young = desk.new_lane("a"), desk.new_lane("b", "c", now=T0 + 1)
        with desk.step() as store:
            store.repoint_aliases(young, old)
            assert store.conversations_of(HERE, ["b", "c"]) == [old]
        desk.restart()
        with desk.step() as store:
            assert store.conversations_of(HERE, ["a", "b", "c"]) == [old]

    def test_a_person_is_found_everywhere_but_in_other_tenants(self, home: Home) -> None:
        desk = Desk(home)
        here, there = desk.new_lane("p"), desk.new_lane("p", scope=Scope("default", "x", "y"))
        merged, twice = desk.new_lane(now=T0 + 1), desk.new_lane(now=T0 + 2)
        desk.new_lane("p", scope=Scope("other", "test", "one"))
        with desk.step() as store:
            store.lane(merged).merged_into = here
            store.lane(twice).merged_into = merged
            assert set(store.conversations_of_person("default", "p")) == {here, there, merged, twice}
            assert len(store.conversations_of_person("default", "p")) == 4
            assert store.conversations_of_person("default", "q") == []

    def test_a_person_is_found_by_a_name_that_only_another_place_knows(self, home: Home) -> None:
        """One shop knew a phone and a LID, another only the LID: forgetting by phone left the other one's messages."""
        desk = Desk(home)
        both = desk.new_lane("phone:1", "lid:1")
        lid = desk.new_lane("lid:1", "bsuid:1", scope=Scope("default", "x", "y"))
        bsuid = desk.new_lane("bsuid:1", scope=Scope("default", "x", "z"))
        desk.new_lane("phone:2", "lid:2")
        with desk.step() as store:
            for name in ("phone:1", "lid:1", "bsuid:1"):
                assert set(store.conversations_of_person("default", name)) == {both, lid, bsuid}


class TestHistory:
    def test_unrecorded_turns_come_in_the_order_of_their_ends(self, home: Home) -> None:
        """A turn that opened first may end last: a record-only one is born ended."""
        desk = Desk(home)
        name = desk.new_lane()
        with desk.step() as store:
            lane = store.lane(name)
            slow = desk.open_turn(lane)
            expected = [desk.ended(lane), desk.ended(lane)]
            expected.append(desk.end(lane, slow).turn_id)
            assert [t.turn_id for t in store.unrecorded(lane, ALL)[0]] == expected
        for _ in range(2):
            with desk.step() as store:
                lane = store.lane(name)
                assert [t.turn_id for t in store.unrecorded(lane, ALL)[0]] == expected
                assert [t.turn_id for t in store.ended_turns(name, 2)] == expected[:0:-1]
                assert len({store.ended_no(lane, t) for t in expected}) == 3
            desk.restart()

    def test_size_leaves_some_out_but_never_all(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        with desk.step() as store:
            ids = [desk.ended(store.lane(name), sent("12345678")) for _ in range(3)]
        with desk.step() as store:
            lane = store.lane(name)
            for size, count in ((1, 1), (10, 1), (19, 1), (20, 2), (29, 2), (30, 3)):
                turns, more = store.unrecorded(lane, size)
                assert ([t.turn_id for t in turns], more) == (ids[:count], count < 3), size

    def test_what_is_marked_is_recorded_and_no_more(self, home: Home) -> None:
        desk = Desk(home)
        name, other = desk.new_lane(), desk.new_lane()
        with desk.step() as store:
            desk.ended(store.lane(other))
            first, second, third = (desk.ended(store.lane(name)) for _ in range(3))
            last = desk.open_turn(store.lane(name))
        live = desk.store.live_messages
        with desk.step() as store:
            lane = store.lane(name)
            store.mark_recorded(lane, store.ended_no(lane, second))
            assert lane.unrecorded == 1
            assert [t.turn_id for t in store.unrecorded(lane, ALL)[0]] == [third]
        assert desk.store.live_messages == live - 2
        desk.restart()
        assert desk.store.live_messages == live - 2
        with desk.step() as store:
            lane = store.lane(name)
            assert lane.unrecorded == 1
            assert [t.recorded for t in store.ended_turns(name, 9)] == [False, True, True]
            assert len(store.unrecorded(store.lane(other), ALL)[0]) == 1
            # One that ends in this very step is marked as well; the running one never is.
            fourth = desk.ended(lane)
            lane.turn = store.turn(last.turn_id)
            store.mark_recorded(lane, ALL)
            assert (lane.unrecorded, store.unrecorded(lane, ALL)) == (0, ([], False))
        desk.restart()
        with desk.step() as store:
            turn = store.lane(name).turn
            assert turn is not None and not turn.recorded and store.turn(fourth).recorded
            assert store.turn(first).recorded

    def test_the_end_number_of_a_turn_of_this_lane(self, home: Home) -> None:
        desk = Desk(home)
        name, other = desk.new_lane(), desk.new_lane()
        with desk.step() as store:
            turn_id = desk.ended(store.lane(name))
            running = desk.open_turn(store.lane(name)).turn_id
        with desk.step() as store:
            lane = store.lane(name)
            assert store.ended_no(lane, turn_id) == store.turn(turn_id).ended_no > 0
            assert [store.ended_no(lane, running), store.ended_no(lane, "no")] == [0, 0]
            assert store.ended_no(store.lane(other), turn_id) == 0

    def test_live_messages_are_those_that_history_has_not_got(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        assert (desk.store.live_messages, desk.store.live_bytes) == (0, 0)
        with desk.step() as store:
            lane = store.lane(name)
            desk.ended(lane)
            desk.ended(lane, recorded=True)
            desk.open_turn(lane)
            lane.pending = [desk.write(lane, body=b"123")]
        for _ in range(2):
            assert (desk.store.live_messages, desk.store.live_bytes) == (3, 7)
            desk.restart()
        with desk.step() as store:
            store.mark_recorded(store.lane(name), ALL)
            store.ended_turns(name, 9)
        for _ in range(2):
            assert (desk.store.live_messages, desk.store.live_bytes) == (2, 5)
            desk.restart()
        with desk.step() as store:
            assert store.erase(name) == 4
        assert (desk.store.live_messages, desk.store.live_bytes) == (0, 0)


class TestEvidence:
    def test_sends_of_this_lane_are_known_also_in_the_step_that_made_them(self, home: Home) -> None:
        desk = Desk(home)
        name, other = desk.new_lane(), desk.new_lane()
        with desk.step() as store:
            lane = store.lane(name)
            desk.ended(lane, sent(provider="wa1"))
            desk.open_turn(lane, sent(provider="wa2"))
            assert store.knows_send(lane, "wa1") and store.knows_send(lane, "wa2")
        desk.restart()
        with desk.step() as store:
            lane = store.lane(name)
            assert store.knows_send(lane, "wa1") and store.knows_send(lane, "wa2")
            assert not store.knows_send(lane, "wa3") and not store.knows_send(store.lane(other), "wa1")
            assert lane.turn is not None
            lane.turn.parts[0].provider_message_id = "wa3"
            assert store.knows_send(lane, "wa3") and not store.knows_send(lane, "wa2")

    def test_unknown_parts_are_those_of_ended_turns_and_young(self, home: Home) -> None:
        desk = Desk(home)
        name, other = desk.new_lane(), desk.new_lane()
        with desk.step() as store:
            lane = store.lane(name)
            desk.ended(lane, sent(), unknown("a", T0), unknown("b", T0 - 1))
            desk.ended(lane, unknown("c", T0 + 1))
            running = desk.open_turn(lane, unknown("running"))
            desk.ended(store.lane(other), unknown("other"))
            assert [p.text for _, p in store.unknown_parts(lane, T0)] == ["a", "c"]
            lane.turn = running
        desk.restart()
        with desk.step() as store:
            lane = store.lane(name)
            found = store.unknown_parts(lane, T0)
            assert [p.text for _, p in found] == ["a", "c"]
            found[0][1].state = PartState.SENT
            assert [p.text for _, p in store.unknown_parts(lane, T0)] == ["c"]
            assert lane.turn is not None
            desk.end(lane, lane.turn)
            assert [p.text for _, p in store.unknown_parts(lane, T0)] == ["c", "running"]
        with desk.step() as store:
            assert [p.text for _, p in store.unknown_parts(store.lane(name), 0)] == ["b", "c", "running"]

    def test_a_correction_needs_the_very_attempt(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        with desk.step() as store:
            turn_id = desk.ended(store.lane(name), sent(), unknown())
        with desk.step() as store:
            for index, attempt, name_ in ((1, 2, turn_id), (0, 1, turn_id), (2, 3, turn_id), (-1, 3, turn_id)):
                assert not store.correct(name_, index, attempt, "wa")
            assert not store.correct("no", 1, 3, "wa")
            assert store.correct(turn_id, 1, 3, "wa9")
            assert not store.correct(turn_id, 1, 3, "wa9")
        desk.restart()
        with desk.step() as store:
            part = store.turn(turn_id).parts[1]
            assert (part.state, part.provider_message_id) == (PartState.SENT, "wa9")
            assert store.knows_send(store.lane(name), "wa9")

    def test_a_receipt_finds_the_conversation_in_its_scope_only(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        with desk.step() as store:
            desk.open_turn(store.lane(name), sent(provider="wa1"))
            assert store.note_delivery(HERE, "wa1", 2) == name
        with desk.step() as store:
            assert store.note_delivery(HERE, "wa1", 1) == name
            assert store.note_delivery(HERE, "wa2", 1) == ""
            assert store.note_delivery(Scope("default", "test", "two"), "wa1", 1) == ""


class TestDeadLettersAndCounts:
    def test_dead_letters_newest_first_until_replayed(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        foreign = desk.new_lane(scope=Scope("other", "test", "one"))
        with desk.step() as store:
            turns = [desk.open_turn(store.lane(name)) for _ in range(3)]
            for n, turn in enumerate(turns):
                store.bury(turn, f"why {n}", T0 + n)
            store.bury(desk.open_turn(store.lane(foreign)), "attempts", T0)
        desk.restart()
        with desk.step() as store:
            third, second, first = letters(store)
            assert [d.turn_id for d in (first, second, third)] == [t.turn_id for t in turns]
            assert (second.reason, second.created_at, second.conversation_id) == ("why 1", T0 + 1, name)
            assert store.dead_letters("default", third.dead_letter_id, 1, replayed_too=False) == [second]
            assert store.dead_letter(first.dead_letter_id) == first and store.dead_letter(99) is None
            store.mark_replayed(second.dead_letter_id, "again", T0 + 9, handed=True)
            assert letters(store) == [third, first]
        desk.restart()
        with desk.step() as store:
            marked = letters(store, replayed_too=True)[1]
            assert (marked.replayed_at, marked.replay_turn_id, marked.handed) == (T0 + 9, "again", True)
            assert len(letters(store, "other")) == 1

    def test_pages_of_lanes_leave_none_out_and_show_none_twice(self, home: Home) -> None:
        desk = Desk(home)
        names = [desk.new_lane(now=T0 + n // 3) for n in range(7)]
        merged = desk.new_lane()
        desk.new_lane(scope=Scope("other", "test", "one"))
        with desk.step() as store:
            store.lane(merged).merged_into = names[0]
            store.lane(names[4]).pause = Pause(T0, T0, "rpc")
        desk.restart()
        with desk.step() as store:
            shown: list[Lane] = []
            after = (-1, "")
            while page := store.list_lanes("default", after, 2, idle_too=True):
                assert len(page) <= 2
                shown += page
                after = (page[-1].activity_at, page[-1].conversation_id)
            assert sorted(lane.conversation_id for lane in shown) == sorted(names)
            assert [lane.activity_at for lane in shown] == sorted(lane.activity_at for lane in shown)
            busy = store.list_lanes("default", (-1, ""), 9, idle_too=False)
            assert [lane.conversation_id for lane in busy] == [names[4]]

    def test_counts_are_those_of_the_tenant(self, home: Home) -> None:
        desk = Desk(home)
        name, foreign = desk.new_lane(), desk.new_lane(scope=Scope("other", "test", "one"))
        with desk.step() as store:
            for lane in (store.lane(name), store.lane(foreign)):
                desk.ended(lane, sent(), unknown())
                store.bury(desk.open_turn(lane), "attempts", T0)
                lane.pending = [desk.write(lane)]
                store.quarantine(lane.scope, "?", b"body", T0)
            store.lane(name).pause = Pause(T0 + 4, T0 + 9, "rpc")
            store.lane(name).needs_human = True
        desk.restart()
        one = dict.fromkeys(("turns", "pending", "unrecorded", "conversations", "dead_letters"), 1)
        one |= {"quarantined": 1, "unknown_parts": 1}
        paused = {"paused": 1, "oldest_pause": T0 + 4, "needs_human": 1}
        with desk.step() as store:
            assert store.stats("default") == {**one, **paused}
            assert store.stats("other") == {**one, "paused": 0, "oldest_pause": None, "needs_human": 0}
            assert store.stats("") == {**{k: 2 * v for k, v in one.items()}, **paused}


class TestForgetting:
    def test_everything_of_a_conversation_goes_and_nothing_else(self, home: Home) -> None:
        desk = Desk(home)
        gone, stays = desk.new_lane("phone:1"), desk.new_lane("phone:2", now=T0 + 1)
        with desk.step() as store:
            for lane in (store.lane(gone), store.lane(stays)):
                desk.ended(lane, sent(provider=f"wa-{lane.aliases[0]}"))
                store.bury(desk.open_turn(lane, unknown()), "attempts", T0)
                lane.pending = [desk.write(lane, f"p-{lane.aliases[0]}")]
                incoming = Incoming(message_id="e", body=b"", provider_at=0, human=True)
                lane.echoes = [Echo("x", T0, incoming)]
            store.quarantine(HERE, "?", b"from 5581 to", T0)
            store.quarantine(HERE, "?", b"other", T0)
            store.quarantine(THERE, "?", b"another business's 5581", T0)
        with desk.step() as store:
            # Handed out and changed before: it must not come back when the step is saved.
            lane = store.lane(gone)
            lane.needs_human = True
            assert lane.turn is not None
            turn_id, lane.turn = lane.turn.turn_id, None
            assert store.erase(gone) == 3
            assert store.erase_quarantine("default", ["5581", "never"]) == 1
            store.leave_tombstones("default", [gone], T0)
        assert desk.store.erased
        assert desk.store.vacuum(at_most_bytes=ALL) and not desk.store.erased
        desk.restart()
        with desk.step() as store:
            with pytest.raises(UnknownConversation):
                store.lane(gone)
            with pytest.raises(KeyError):
                store.turn(turn_id)
            assert store.messages_of(turn_id) == []
            assert (
                store.conversations_of(HERE, ["phone:1"]) == store.conversations_of_person("default", "phone:1") == []
            )
            assert store.note_delivery(HERE, "wa-phone:1", 1) == ""
            assert not store.seen(HERE, "p-phone:1") and not store.seen(HERE, "m1")
            assert [d.conversation_id for d in letters(store, replayed_too=True)] == [stays]
            assert len(store.lane(stays).echoes) == 1 and store.seen(HERE, "p-phone:2")
            assert store.note_delivery(HERE, "wa-phone:2", 1) == stays
            stats = store.stats("")
            assert (stats["conversations"], stats["turns"], stats["unknown_parts"], stats["quarantined"]) == (
                1,
                1,
                1,
                2,
            )

    def test_the_name_of_a_forgotten_person_is_free(self, home: Home) -> None:
        desk = Desk(home)
        gone = desk.new_lane("phone:1")
        with desk.step() as store:
            store.erase(gone)
        again = desk.new_lane("phone:1")
        with desk.step() as store:
            assert store.conversations_of(HERE, ["phone:1"]) == [again] != [gone]

    def test_what_moved_is_erased_with_its_new_lane_only(self, home: Home) -> None:
        desk = Desk(home)
        a, b = desk.new_lane(), desk.new_lane(now=T0 + 1)
        with desk.step() as store:
            younger = store.lane(b)
            younger.pending = [desk.write(younger)]
        with desk.step() as store:
            older, younger = store.lane(a), store.lane(b)
            younger.pending[0].conversation_id = a
            older.pending, younger.pending = younger.pending, []
            assert store.erase(b) == 0
            assert len(store.lane(a).pending) == 1
        desk.restart()
        with desk.step() as store:
            assert [m.message_id for m in store.lane(a).pending] == ["m1"]
            assert store.erase(a) == 1

    def test_the_sweep_takes_old_recorded_turns(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        with desk.step() as store:
            lane = store.lane(name)
            old = desk.ended(lane, sent(provider="wa1"), at=T0, recorded=True)
            kept = [
                desk.ended(lane, at=T0, recorded=False),
                desk.ended(lane, at=T0 + 10, recorded=True),
                desk.ended(lane, at=T0, recorded=True),
            ]
            store.bury(store.turn(kept[-1]), "attempts", T0)
            store.quarantine(HERE, "?", b"old", T0)
            store.quarantine(HERE, "?", b"new", T0 + 10)
        with desk.step() as store:
            assert store.sweep(T0 + 10) == 1
        desk.restart()
        with desk.step() as store:
            assert [t.turn_id for t in store.ended_turns(name, 9)] == kept[::-1]
            with pytest.raises(KeyError):
                store.turn(old)
            assert not store.seen(HERE, "m1") and store.seen(HERE, "m2")
            assert not store.knows_send(store.lane(name), "wa1")
            assert store.stats("")["quarantined"] == 1
            store.mark_replayed(letters(store)[0].dead_letter_id, "x", T0, handed=False)
        with desk.step() as store:
            assert store.sweep(T0 + 10) == 1
            assert store.sweep(T0 + 10) == 0

    def test_who_has_been_silent_for_long_goes_with_their_names_and_others_stay(self, home: Home) -> None:
        desk = Desk(home)
        silent, spoke = desk.new_lane("phone:1"), desk.new_lane("phone:2", now=T0 + 10)
        older = desk.new_lane("phone:3")
        kept = {name: desk.new_lane(f"phone:{name}") for name in ("turn", "ended", "pending", "unrecorded", "paused")}
        younger = desk.new_lane()
        with desk.step() as store:
            store.lane(younger).merged_into = older
            desk.open_turn(store.lane(kept["turn"]))
            desk.ended(store.lane(kept["ended"]), recorded=True)
            desk.ended(store.lane(kept["unrecorded"]))
            store.lane(kept["pending"]).pending = [desk.write(store.lane(kept["pending"]))]
            store.lane(kept["paused"]).pause = Pause(T0, T0, "rpc")
            for at in (T0, T0 + 10):
                store.bury(desk.open_turn(store.lane(spoke)), "attempts", at)
            store.lane(spoke).turn = None
        with desk.step() as store:
            # Whoever was merged goes first, else their conversation would lead nowhere.
            assert store.sweep_people(T0 + 10) == 3
            with pytest.raises(UnknownConversation):
                store.lane(younger)
            assert store.lane(older).aliases == ("phone:3",)
        with desk.step() as store:
            assert [store.sweep_people(T0 + 10), store.sweep_people(T0 + 10)] == [1, 0]
        assert not desk.store.erased, "the file is not rebuilt for it"
        desk.restart()
        with desk.step() as store:
            assert store.conversations_of_person("default", "phone:1") == []
            assert [d.created_at for d in letters(store)] == [T0 + 10]
            assert all(store.lane(name).activity_at for name in (spoke, *kept.values()))
            assert store.stats("")["conversations"] == 6
            for gone in (silent, older):
                with pytest.raises(UnknownConversation):
                    store.lane(gone)

    def test_the_sweep_stops_at_its_limit(self, home: Home) -> None:
        desk = Desk(home)
        name = desk.new_lane()
        with desk.step() as store:
            for _ in range(5):
                desk.ended(store.lane(name), recorded=True)
        with desk.step() as store:
            assert [store.sweep(ALL, limit) for limit in (2, 2, 2)] == [2, 2, 1]


CONTRACT = [
    (group, name)
    for group in (
        TestTransactions,
        TestDeduplication,
        TestLanes,
        TestIdentity,
        TestHistory,
        TestEvidence,
        TestDeadLettersAndCounts,
        TestForgetting,
        TestAttributes,
    )
    for name in vars(group)
    if name.startswith("test_")
]


def objections(kind: type[SqliteStore], folder: Path) -> Iterator[str]:
    """What the contract has against a store."""
    for number, (group, name) in enumerate(CONTRACT):
        check = getattr(group(), name)
        arguments = {"running": True} if "running" in inspect.signature(check).parameters else {}
        home = SqliteHome(folder / f"{number}", kind)
        try:
            check(home, **arguments)
        except (Exception, pytest.fail.Exception) as error:
            yield f"{name}: {error!r}"
        finally:
            home.kill()


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_the_contract_rejects_a_broken_store(broken: type[SqliteStore], tmp_path: Path) -> None:
    assert next(objections(broken, tmp_path), None)
