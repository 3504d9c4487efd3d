"""Fifteen broken builds: what is broken where, and who has to notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Replaces a text that occurs exactly once in a file."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class Build:
    """One broken build. `caught_by` are pytest's names of tests that must go red."""

    name: str
    promise: str
    edits: tuple[Edit, ...]
    caught_by: tuple[str, ...]


ENGINE = "buffer_service/engine.py"
TABLES = "buffer_service/store/lane_tables.py"
REPLIES = "buffer_service/turn_taking/replies.py"
STORAGE = "tests/storage_faults/test_storage_faults.py"
SCHEDULES = "tests/simulation/test_core.py::test_a_few_schedules"
SHIPPED = "tests/buffer_service/test_shipped_bugs.py"
LONG_AGO = "tests/buffer_service/test_redelivery.py"

BUILDS = (
    Build(
        name="acknowledges before the commit",
        promise="I1",
        edits=(
            Edit(
                file=ENGINE,
                old="            self.turns.keep_frames()\n        except UnknownConversation:",
                new="            self.turns.keep_frames()\n"
                "            self._loop.call_soon_threadsafe(self._answer, [command], [])\n"
                "        except UnknownConversation:",
            ),
        ),
        caught_by=(f"{STORAGE}::test_a_sync_that_fails_is_never_acknowledged_and_stops_the_engine",),
    ),
    Build(
        name="synchronous NORMAL instead of FULL",
        promise="I1p",
        edits=(
            Edit(
                file="buffer_service/store/connection.py",
                old='("synchronous", "FULL", 2)',
                new='("synchronous", "NORMAL", 1)',
            ),
        ),
        caught_by=(f"{STORAGE}::test_a_power_loss_takes_nothing_that_was_acknowledged",),
    ),
    Build(
        name="no fence",
        promise="I2",
        edits=(Edit(file=REPLIES, old="if epoch != lane.turn.epoch:", new="if False:"),),
        caught_by=(SHIPPED, "tests/contract/test_bad_frames.py"),
    ),
    Build(
        name="the fence is checked in the worker only",
        promise="I2",
        edits=(
            Edit(file=REPLIES, old="if epoch != lane.turn.epoch:", new="if epoch > lane.turn.epoch:"),
            Edit(
                file="buffer_service/turn_taking/core.py",
                old="return epoch == turn.epoch and (",
                new="return (",
            ),
        ),
        caught_by=(SHIPPED, "tests/contract/test_bad_frames.py"),
    ),
    Build(
        name="deduplication in memory",
        promise="I8",
        edits=(
            Edit(
                file="buffer_service/store/schema.py",
                old="  UNIQUE (tenant, channel, instance, message_id)\n",
                new="  CHECK (sequence > 0)\n",
            ),
            Edit(file=TABLES, old='            " ON CONFLICT DO NOTHING RETURNING sequence",', new='            " RETURNING sequence",'),
            Edit(
                file=TABLES,
                old='        """See LaneStore."""\n        scope = lane.scope\n        found = self.query(',
                new='        """See LaneStore."""\n        scope = lane.scope\n'
                '        marks = self.__dict__.setdefault("_marks", set())\n'
                "        if (scope, incoming.message_id) in marks:\n            return None\n"
                "        marks.add((scope, incoming.message_id))\n        found = self.query(",
            ),
            Edit(
                file="buffer_service/inbox.py",
                old="        if self._store.seen(scope, message.message_id):\n"
                "            return pb.EventResult(outcome=Outcome.OUTCOME_DUPLICATE)\n        human",
                new="        human",
            ),
        ),
        caught_by=(LONG_AGO,),
    ),
    Build(
        name="deduplication for an hour",
        promise="I8",
        edits=(
            Edit(
                file="buffer_service/app.py",
                old="int(self._settings.retention_days * DAY_MS)",
                new="3_600_000",
            ),
        ),
        caught_by=(LONG_AGO,),
    ),
    Build(
        name="ATTEMPTING is written after the send",
        promise="I4",
        edits=(
            Edit(
                file=REPLIES,
                old="part.state, part.attempt = PartState.ATTEMPTING, turn.attempt_no",
                new="part.attempt = turn.attempt_no",
            ),
        ),
        caught_by=(SCHEDULES,),
    ),
    Build(
        name="a send is tried again",
        promise="I4",
        edits=(
            Edit(
                file="ingress/providers/evolution/sender.py",
                old="        result = await self._post_text(to, to.address, text, deadline)\n",
                new="        result = await self._post_text(to, to.address, text, deadline)\n"
                "        if result.outcome != SEND_OUTCOME_SENT and not result.detail:\n"
                "            result = await self._post_text(to, to.address, text, deadline)\n"
                "        elif result.outcome not in (SEND_OUTCOME_SENT,):\n"
                "            result = await self._post_text(to, to.address, text, deadline)\n",
            ),
        ),
        caught_by=("tests/ingress/test_evolution_sender.py::test_no_fault_makes_it_send_twice",),
    ),
    Build(
        name="a cancellation is swallowed",
        promise="I10",
        edits=(
            Edit(
                file="ingress/generation.py",
                old="        while isinstance(frame := await call.read(), agent_pb.RespondResponse):",
                new="        while isinstance(frame := await asyncio.shield(_swallow(call)), agent_pb.RespondResponse):",
            ),
            Edit(
                file="ingress/held_turn.py",
                old="            self.generation.cancel()\n            self.generation = None",
                new="            self.generation = None",
            ),
            Edit(
                file="ingress/generation.py",
                old="def _begin(request",
                new="async def _swallow(call: object) -> object:\n    return await call.read()  # type: ignore\n\n\ndef _begin(request",
            ),
        ),
        caught_by=("tests/ingress/test_preempt.py",),
    ),
    Build(
        name="a context that everybody shares",
        promise="I5",
        edits=(
            Edit(
                file="ingress/generation.py",
                old="        return await asyncio.shield(self._task)",
                new="        kept = globals().setdefault('_KEPT', [])\n"
                "        kept.append(await asyncio.shield(self._task))\n        return kept[0]",
            ),
        ),
        caught_by=("tests/ingress/test_isolation.py",),
    ),
    Build(
        name="a stream is left without cancelling its call",
        promise="I10",
        edits=(
            Edit(
                file="ingress/generation.py",
                old="        # Leaving the loop alone would let the model go on.\n        call.cancel()",
                new="        _LEFT.append(call)",
            ),
            Edit(file="ingress/generation.py", old="_log = logs.get(__name__)", new="_log = logs.get(__name__)\n_LEFT: list = []"),
        ),
        caught_by=("tests/ingress/test_isolation.py",),
    ),
    Build(
        name="a queue without an end",
        promise="I6",
        edits=(
            Edit(file="buffer_service/inbox.py", old="            if reached:", new="            if reached and limit == 'nothing':"),
        ),
        caught_by=("tests/buffer_service/test_service.py",),
    ),
    Build(
        name="the token is compared until the first difference",
        promise="I7",
        edits=(
            Edit(
                file="ingress/providers/evolution/auth.py",
                old="return hmac.compare_digest(given, self._token) and bool(self._token)",
                new="return given == self._token and bool(self._token)",
            ),
        ),
        caught_by=("tests/ingress/test_isolation.py",),
    ),
    Build(
        name="the body is parsed before its sender is known",
        promise="I7",
        edits=(
            Edit(
                file="ingress/edge.py",
                old="        self._authorize(provider, request)\n        body, parsed = await self._read_and_parse(provider, request)\n",
                new="        body, parsed = await self._read_and_parse(provider, request)\n        self._authorize(provider, request)\n",
            ),
        ),
        caught_by=("tests/ingress/test_edge.py::test_a_stranger_is_refused_before_the_body_is_read",),
    ),
    Build(
        name="the body is logged",
        promise="I14",
        edits=(
            Edit(
                file="ingress/edge.py",
                old='        log("webhook_handled", provider=name, bytes=body, **counts)',
                new='        log("webhook_handled", provider=name, events=str(parsed.events), **counts)',
            ),
        ),
        caught_by=("tests/ingress/test_edge.py::test_nothing_of_a_message_or_a_person_is_logged",),
    ),
)  # fmt: skip
