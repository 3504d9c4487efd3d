"""Runs the turns that the buffer assigns: generate, commit, send, report, record, finish.

The worker's half of the RunTurns protocol. All of it happens in the event loop. The buffer decides every race; this
side only never does what it was not told to do: a part is sent only on `go`, and only while that answer is fresh.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

import grpc

from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import error_reason_pb2, lead_pb2, turn_pb2
from ingress.accounting import with_generation
from ingress.buffer_link import BufferLink
from ingress.context_link import ContextLink
from ingress.generation import ContextLoader, EmptyReply, Progress, Request, generate
from ingress.held_turn import SAID, HeldTurn, Sending
from ingress.providers import Provider, SendResult
from ingress.recorder import Recorder
from ingress.reply_parts import PartCutter
from ingress.services import Services
from ingress.settings import IngressSettings
from ingress.summaries import Summaries
from ingress.timeline import Timeline
from service_kit import errors, logs
from service_kit.clock import Clock
from service_kit.durations import duration_to_ms, timestamp_to_ms

FRESH_S = 1.0
HONEST_MARGIN_S = 1.5
RETRY_MIN_S = 0.1
RETRY_MAX_S = 1.0
MAX_FAILURES = 3
BEGUN_KEPT = 10_000
_log = logs.get(__name__)


class TurnRunner:
    """One per process. `on_finished` gets every turn's timeline; it must not raise."""

    def __init__(
        self,
        *,
        services: Services,
        providers: Mapping[str, Provider],
        settings: IngressSettings,
        clock: Clock,
        honest_sentence: Callable[[], str],
        on_finished: Callable[[HeldTurn], None],
    ) -> None:
        self._services = services
        self._providers = providers
        self._settings = settings
        self._clock = clock
        self._honest_sentence = honest_sentence
        self._on_finished = on_finished
        self.context = ContextLink(services.context, load_timeout_s=settings.context_timeout_ms / 1000)
        self._recorder = Recorder(self.context, timeout_s=settings.record_timeout_ms / 1000)
        self._held: dict[str, HeldTurn] = {}
        self._begun: OrderedDict[tuple[str, int], SendResult | None] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._draining = self._stopping = False
        self.counters: Counter[str] = Counter()
        self._summaries = Summaries(services, counters=self.counters)
        self.link = BufferLink(
            stub=services.buffer,
            capacity=settings.max_turns,
            holding=self._holding,
            on_frame=self._on_frame,
        )

    # ---- life

    async def run(self) -> None:
        """Works until cancelled."""
        await self.link.run()

    async def drain(self, *, turns_s: float, sends_s: float) -> None:
        """Lets held turns end; what is still generating then goes back to the buffer, a send in progress is awaited."""
        self._draining = True
        await self._wait_until(lambda: not self._held, turns_s)
        self._stopping = True
        for held in list(self._held.values()):
            if held.sending is None:
                self._give_back(held, pb.RELEASE_REASON_DRAINING)
        await self._wait_until(lambda: not self._held, sends_s)
        # The link writes what is queued before it is cut.
        await self._clock.sleep(0.1)

    async def _wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        ends = self._clock.monotonic() + seconds
        while not condition() and self._clock.monotonic() < ends:
            await self._clock.sleep(0.02)

    async def close(self) -> None:
        """Cancels what is left."""
        for held in self._held.values():
            held.release_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._summaries.close()
        await self.context.close()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("turn_task_failed", task=task.get_name(), exc_info=task.exception())

    def _holding(self) -> Iterable[pb.Holding]:
        return [pb.Holding(turn_id=h.turn_id, epoch=h.epoch) for h in self._held.values()]

    # ---- frames

    def _on_frame(self, frame: pb.RunTurnsResponse) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "assign":
            self._assigned(frame.assign)
        elif kind == "record":
            self._spawn(self._record_list(frame.record), f"record-{frame.record.conversation_id}")
        elif kind == "joined":
            self._joined(frame.joined)
        elif kind == "committed":
            self._committed(frame.committed)
        elif kind == "revoke":
            held = self._held.get(frame.revoke.turn_id)
            if held and frame.revoke.epoch in (0, held.epoch):
                self._drop(held)

    def _drop(self, held: HeldTurn) -> None:
        held.release_all()
        if self._held.get(held.turn_id) is held:
            del self._held[held.turn_id]

    def _give_back(self, held: HeldTurn, reason: pb.ReleaseReason.ValueType) -> None:
        self._drop(held)
        release = pb.Release(turn_id=held.turn_id, epoch=held.epoch, reason=reason)
        self.link.send(pb.RunTurnsRequest(release=release))

    def _assigned(self, assign: pb.Assign) -> None:
        held = self._held.get(assign.turn_id)
        if held and assign.kept:
            return self._reconcile(held, assign)
        if held:
            self._drop(held)
        held = self._take(assign)
        if any(p.state == turn_pb2.PART_STATE_ATTEMPTING for p in assign.parts):
            held.parts = [p.text for p in assign.parts]
            return self._reconcile(held, assign)
        if self._draining:
            return self._give_back(held, pb.RELEASE_REASON_DRAINING)
        if assign.last or any(p.state != turn_pb2.PART_STATE_STORED for p in assign.parts):
            # Something was said already, or silence was chosen: go on after it, once.
            held.parts = [p.text for p in assign.parts]
            held.effects, held.truncated, held.last = list(assign.effects), assign.truncated, assign.last
            held.said_effects, held.committed = list(assign.effects), True
            return self._ask(held) if held.last else self._generate(held)
        return self._generate(held)

    def _take(self, assign: pb.Assign) -> HeldTurn:
        now = self._clock.monotonic()
        timeline = Timeline(start=now - duration_to_ms(assign.waited) / 1000, messages=len(assign.messages))
        timeline.mark("wait", now)
        timeline.provider_lag_ms = _provider_lag_ms(assign)
        held = HeldTurn(
            assign=assign,
            deadline=now + duration_to_ms(assign.remaining) / 1000,
            timeline=timeline,
            revision=assign.revision,
            messages=list(assign.messages),
        )
        self._held[assign.turn_id] = held
        self.counters["assigned"] += 1
        _log.debug("turn_taken", turn_id=held.turn_id, epoch=held.epoch)
        return held

    def _reconcile(self, held: HeldTurn, assign: pb.Assign) -> None:
        """Kept over a lost stream: the buffer's view is the truth; tell it what it doesn't know yet."""
        held.adopt(assign)
        held.asks.clear()
        if assign.revision > held.revision:
            return self._restart(held, assign.revision, assign)
        flying = next((p for p in assign.parts if p.state == turn_pb2.PART_STATE_ATTEMPTING), None)
        if flying:
            return self._report_flying(held, flying)
        if held.finishing:
            return self._finish_if_recorded(held)
        if held.parts or held.last:
            return self._ask(held)
        return None

    def _report_flying(self, held: HeldTurn, flying: turn_pb2.Part) -> None:
        key = (held.turn_id, flying.attempt)
        if key not in self._begun:
            return self._report(held, flying.index, flying.attempt, SendResult(outcome=pb.SEND_OUTCOME_NOT_STARTED))
        result = self._begun[key]
        if result is not None:
            return self._report(held, flying.index, flying.attempt, result)
        return None  # still under way

    def _joined(self, joined: pb.Joined) -> None:
        held = self._held.get(joined.turn_id)
        if held:
            self._restart(held, joined.revision, joined)

    def _restart(self, held: HeldTurn, revision: int, source: pb.Joined | pb.Assign) -> None:
        """More messages belong to the turn: what was generated is discarded, with all that it wanted to change."""
        if revision <= held.revision or held.sending:
            return
        held.revision, held.messages = revision, list(source.messages)
        held.timeline.messages = len(held.messages)
        held.timeline.restart(self._clock.monotonic())
        self.counters["restarts"] += 1
        self._discard(held)
        held.parts, held.last, held.effects, held.truncated = [], False, [], False
        held.said_effects, held.needs_human, held.done = [], False, None
        wait = duration_to_ms(source.wait) / 1000 if isinstance(source, pb.Joined) else 0.0
        self._generate(held, after_s=wait)

    def _discard(self, held: HeldTurn) -> None:
        if held.asked:
            self.counters["discarded_tokens"] += held.discarded.add(held.generated, held.usage)
        held.generated, held.asked, held.usage = 0, False, None

    # ---- generating

    def _generate(self, held: HeldTurn, *, after_s: float = 0.0) -> None:
        held.cancel_generation()
        if held.assign.kind == turn_pb2.TURN_KIND_APOLOGY:
            return self._say_honest(held)
        self._arm_typing(held)
        if held.context is None:
            held.context = ContextLoader(self.context, held.assign)
        held.generation = self._spawn(self._generation(held, after_s), f"turn-{held.turn_id}")
        return None

    async def _generation(self, held: HeldTurn, after_s: float) -> None:
        """Generates until the reply is whole; a failed agent is asked again after what it said, within the deadline."""
        await self._clock.sleep(after_s)
        failures, pause = 0, RETRY_MIN_S
        while True:
            left = held.deadline - HONEST_MARGIN_S - self._clock.monotonic()
            if left <= 0 or failures >= MAX_FAILURES:
                return self._give_up(held)
            try:
                async with asyncio.timeout(left):
                    await self._one_generation(held, left)
                return None
            except TimeoutError:
                return self._give_up(held)
            except EmptyReply:
                failures += 1
                _log.warning("reply_empty", turn_id=held.turn_id)
            except grpc.aio.AioRpcError as error:
                failures += 0 if _is_transport(error) else 1
                _log.warning("generation_failed", turn_id=held.turn_id, code=error.code().name)
            except Exception:
                failures += 1
                _log.error("generation_broke", turn_id=held.turn_id, exc_info=True)
            # What a discarded generation wanted to change leaves no trace.
            held.effects = list(held.said_effects)
            self.counters["generation_failures"] += 1
            self._discard(held)
            await self._clock.sleep(pause)
            pause = min(pause * 2, RETRY_MAX_S)

    async def _one_generation(self, held: HeldTurn, timeout_s: float) -> None:
        assert held.context is not None
        said = len(held.parts)
        cutter = PartCutter(
            max_chars=self._settings.ingress_part_max_chars,
            max_parts=max(1, self._settings.ingress_max_parts - said),
        )
        await generate(
            self._services,
            Request(assign=held.assign, messages=held.messages, said=list(held.parts), said_effects=list(held.effects)),
            held.context,
            cutter=cutter,
            timeout_s=timeout_s,
            on_context=lambda known: self._on_context(held, known),
            on_text=lambda text: self._on_text(held, text),
            on_progress=lambda progress: self._on_progress(held, progress),
        )

    def _on_context(self, held: HeldTurn, known: lead_pb2.ConversationContext) -> None:
        held.known, held.asked = known, True
        held.timeline.degraded = known.degraded
        held.timeline.mark("context", self._clock.monotonic())
        _log.debug("context_arrived", turn_id=held.turn_id, epoch=held.epoch)

    def _on_text(self, held: HeldTurn, text: str) -> None:
        if not held.generated:
            _log.debug("text_began", turn_id=held.turn_id, epoch=held.epoch)
        held.generated += len(text)
        held.timeline.mark("first_token", self._clock.monotonic())

    def _on_progress(self, held: HeldTurn, progress: Progress) -> None:
        held.parts.extend(progress.parts)
        held.effects.extend(progress.effects)
        held.last, held.done = progress.last, progress.done
        held.usage = progress.usage or held.usage
        if progress.done:
            if unpaid := self._summaries.take_unpaid(held.assign.conversation_id):
                held.discarded.add(0, unpaid)
            held.effects = with_generation(held.effects, held.discarded, done=progress.done, usage=progress.usage)
        if progress.parts or progress.last:
            held.said_effects = list(held.effects)
            if progress.last:
                held.generation = None
            held.timeline.mark("first_part", self._clock.monotonic())
            self._ask(held)

    def _give_up(self, held: HeldTurn) -> None:
        """The deadline is near and nothing can be had: the honest sentence, or an end after what was said."""
        held.generation = None
        self.counters["given_up"] += 1
        self._discard(held)
        if not held.parts:
            return self._say_honest(held)
        held.effects = with_generation(held.effects, held.discarded, done=agent_pb.Done())
        held.last = held.truncated = True
        # No fallback: what was said came from a model.
        held.effects = with_generation(held.said_effects, held.discarded, done=agent_pb.Done())
        return self._ask(held)

    def _say_honest(self, held: HeldTurn) -> None:
        held.parts, held.last, held.needs_human = [self._honest_sentence()], True, True
        held.effects, held.said_effects = with_generation([], held.discarded), []
        self.counters["honest_sentences"] += 1
        self._ask(held)

    # ---- typing

    def _arm_typing(self, held: HeldTurn) -> None:
        if held.typing is None:
            delay = self._settings.typing_after_ms / 1000
            held.typing = asyncio.get_running_loop().call_later(delay, self._show_typing, held)

    def _show_typing(self, held: HeldTurn) -> None:
        provider = self._providers.get(held.assign.scope.channel)
        if provider and not held.committed and not held.dead:
            self._spawn(provider.show_typing(held.to), f"typing-{held.turn_id}")

    # ---- committing and sending

    def _ask(self, held: HeldTurn) -> None:
        commit = pb.Commit(
            ask=held.next_ask(self._clock.monotonic()),
            turn_id=held.turn_id,
            epoch=held.epoch,
            revision=held.revision,
            parts=held.parts,
            last=held.last,
            effects=held.effects,
            truncated=held.truncated,
            needs_human=held.needs_human,
        )
        self.link.send(pb.RunTurnsRequest(commit=commit))
        _log.debug("commit_asked", turn_id=held.turn_id, epoch=held.epoch, ask=commit.ask, revision=held.revision)

    def _report(self, held: HeldTurn, part: int, attempt: int, result: SendResult) -> None:
        frame = pb.Result(
            ask=held.next_ask(self._clock.monotonic()),
            turn_id=held.turn_id,
            epoch=held.epoch,
            part=part,
            attempt=attempt,
            outcome=result.outcome,
            provider_message_id=result.provider_message_id,
            detail=result.detail,
        )
        self.link.send(pb.RunTurnsRequest(result=frame))

    def _committed(self, answer: pb.Committed) -> None:
        held = self._held.get(answer.turn_id)
        if held is None or answer.epoch != held.epoch:
            return None
        asked = held.asks.pop(answer.ask, None)
        # A later request replaces a parked one: what was asked before this is answered too.
        held.asks = {ask: at for ask, at in held.asks.items() if ask > answer.ask}
        if answer.HasField("refusal"):
            return self._refused(held, answer)
        held.committed = held.committed or answer.stored_parts > 0
        if answer.HasField("go"):
            return self._go(held, answer, asked)
        if answer.complete:
            return self._completed(held, answer)
        unsaid = len(held.parts) > answer.stored_parts or held.last
        if not held.asks and held.sending is None and unsaid:
            # Opened again by a refused send, or more was generated meanwhile: ask anew, the buffer parks it.
            return self._ask(held)
        return None

    def _refused(self, held: HeldTurn, answer: pb.Committed) -> None:
        reason = answer.refusal.reason
        self.counters[f"refused_{error_reason_pb2.ErrorReason.Name(reason).lower()}"] += 1
        if reason == error_reason_pb2.SUPERSEDED:
            return self._restart(held, answer.superseded.revision, answer.superseded)
        if reason == error_reason_pb2.INVALID_ARGUMENT:
            _log.error("frame_refused", turn_id=held.turn_id, field=answer.refusal.metadata.get("field", ""))
            return self._give_back(held, pb.RELEASE_REASON_FAILED)
        return self._drop(held)

    def _go(self, held: HeldTurn, answer: pb.Committed, asked: float | None) -> None:
        part = answer.go
        now = self._clock.monotonic()
        held.timeline.mark("hold", now)
        if self._stopping:
            # Too late to begin a send that could be cut; the release says that it never began.
            return self._give_back(held, pb.RELEASE_REASON_DRAINING)
        late = asked is None or now - asked - duration_to_ms(answer.parked) / 1000 > FRESH_S
        if late:
            self.counters["late_permissions"] += 1
            return self._report(held, part.index, part.attempt, SendResult(outcome=pb.SEND_OUTCOME_NOT_STARTED))
        held.sending = Sending(part.index, part.attempt)
        self._remember(held.turn_id, part.attempt, None)
        _log.debug("send_began", turn_id=held.turn_id, epoch=held.epoch, part=part.index, attempt=part.attempt)
        self._spawn(self._send(held, part), f"send-{held.turn_id}-{part.index}")
        return None

    def _remember(self, turn_id: str, attempt: int, result: SendResult | None) -> None:
        self._begun[turn_id, attempt] = result
        while len(self._begun) > BEGUN_KEPT:
            self._begun.popitem(last=False)

    async def _send(self, held: HeldTurn, part: turn_pb2.Part) -> None:
        mine = held.sending
        provider = self._providers.get(held.assign.scope.channel)
        if provider is None:
            result = SendResult(outcome=pb.SEND_OUTCOME_REFUSED_FINAL, detail="no_such_provider")
        else:
            try:
                result = await provider.send_text(held.to, part.text, part_key=f"{held.turn_id}-{part.index}")
            except Exception:
                _log.error("send_raised", turn_id=held.turn_id, exc_info=True)
                result = SendResult(outcome=pb.SEND_OUTCOME_UNKNOWN, detail="internal")
        self.counters[f"sends_{pb.SendOutcome.Name(result.outcome).removeprefix('SEND_OUTCOME_').lower()}"] += 1
        self._remember(held.turn_id, part.attempt, result)
        if result.outcome != pb.SEND_OUTCOME_SENT:
            outcome = pb.SendOutcome.Name(result.outcome).removeprefix("SEND_OUTCOME_").lower()
            _log.warning("part_not_sent", turn_id=held.turn_id, part=part.index, outcome=outcome, detail=result.detail)
        _log.debug("send_ended", turn_id=held.turn_id, epoch=held.epoch, part=part.index, attempt=part.attempt)
        # Whoever holds the turn now tells it; after a revocation it is evidence.
        teller = self._held.get(held.turn_id, held)
        now = self._clock.monotonic()
        teller.timeline.mark("first_send", now)
        teller.timeline.mark("rest", now)
        if self._settings.pacing_ms and part.index + 1 < len(teller.parts) and not self._draining:
            with contextlib.suppress(asyncio.CancelledError):
                await self._clock.sleep(self._settings.pacing_ms / 1000)
        # Only now may this side ask again: before, the buffer would be asked in a circle. After a stream that was lost
        # during the pause it knows already, and the next send may be under way.
        if held.sending is mine:
            held.sending = None
            self._report(teller, part.index, part.attempt, result)

    # ---- recording and finishing

    def _completed(self, held: HeldTurn, answer: pb.Committed) -> None:
        if held.finished:
            return self._ended(held)
        if held.finishing:
            return None
        held.finishing = True
        _log.debug("reply_completed", turn_id=held.turn_id, epoch=held.epoch)
        held.cancel_generation()
        held.timeline.parts = sum(1 for p in answer.record.parts if p.state in SAID)
        held.recording = self._spawn(self._record_own(held, answer.record), f"record-{held.turn_id}")
        return None

    async def _record_own(self, held: HeldTurn, record: turn_pb2.TurnRecord) -> None:
        """Only the buffer's own account goes into history, after the turn is complete."""
        version = 0
        # An apology's worker never saw the messages; older records must not be overtaken.
        if held.assign.kind != turn_pb2.TURN_KIND_APOLOGY and not held.assign.more_unrecorded:
            turns: Sequence[turn_pb2.TurnRecord] = [*held.assign.unrecorded, record]
            done, version = await self._recorder.record_own(turns)
            if 0 < done < len(turns):
                self._tell_recorded(held.assign.conversation_id, turns[done - 1], version)
            version = version if done == len(turns) else 0
        held.timeline.mark("record", self._clock.monotonic())
        held.recorded = version > 0
        self._finish(held, version)

    def _finish(self, held: HeldTurn, version: int) -> None:
        held.finished = True
        held.recorded_version = version
        frame = pb.Finish(ask=held.next_ask(self._clock.monotonic()), turn_id=held.turn_id, epoch=held.epoch)
        if version:
            frame.recorded_version = version
        else:
            frame.unrecorded = True
        self.link.send(pb.RunTurnsRequest(finish=frame))
        _log.debug("finish_asked", turn_id=held.turn_id, epoch=held.epoch, recorded=version > 0)

    def _finish_if_recorded(self, held: HeldTurn) -> None:
        if held.finished:
            self._finish(held, held.recorded_version)

    def _ended(self, held: HeldTurn) -> None:
        self._drop(held)
        self.counters["finished"] += 1
        self._on_finished(held)
        if held.known and held.done and held.done.wants_summary:
            self._summaries.start(held.known)

    async def _record_list(self, record: pb.Record) -> None:
        done, version = await self._recorder.record_handed_out(record.turns)
        if done:
            self._tell_recorded(record.conversation_id, record.turns[done - 1], version)

    def _tell_recorded(self, conversation_id: str, upto: turn_pb2.TurnRecord, version: int) -> None:
        frame = pb.Recorded(conversation_id=conversation_id, turn_id=upto.turn_id, version=version)
        self.link.send(pb.RunTurnsRequest(recorded=frame))

    # ---- looking

    @property
    def held_turns(self) -> int:
        """Turns that this process works on."""
        return len(self._held)


def _provider_lag_ms(assign: pb.Assign) -> int:
    for message in assign.messages[:1]:
        if message.HasField("provider_time"):
            return max(0, timestamp_to_ms(message.accept_time) - timestamp_to_ms(message.provider_time))
    return 0


def _is_transport(error: grpc.aio.AioRpcError) -> bool:
    """The agent wasn't there, or went away: asking again is no failure of the model."""
    reason = errors.parse(error).reason
    return error.code() is grpc.StatusCode.UNAVAILABLE and reason != "MODEL_FAILED"
