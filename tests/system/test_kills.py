"""kill -9 of each process, at idle and in mid-turn, under load. What got a 200 is answered, or its reply is counted
UNKNOWN; no part reaches the provider twice; no reply ends after its first bubble. KILLS=10 runs the long profile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import uuid
from collections import Counter
from dataclasses import dataclass, field

import pytest

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import turn_pb2
from tests.system.harness import SERVICES, System, new_contact, on_the_modules_loop, webhook

KILLS = int(os.environ.get("KILLS", "1"))
LEADS = 6
SCRIPT = [
    "oi, tudo bem?",
    "me chamo Ana",
    "minha conta vem uns 600 reais",
    "quero saber como funciona",
    "quanto tempo demora?",
    "tem garantia?",
    "e se eu me mudar?",
    "qual a economia?",
    "vocês financiam?",
    "entendi",
    "moro em Olinda",
    "não tenho pressa",
    "e a manutenção?",
    "ok",
]

SETTINGS = {"SDR_AGENT_PLAYBOOK_DELAY_MS": "250"}
pytestmark = [pytest.mark.system, pytest.mark.timeout(120 + KILLS * 120)]


@dataclass
class Lead:
    """One person who writes line after line, waiting for nothing but the provider's 200."""

    contact: str
    sent: list[str] = field(default_factory=list)


@dataclass
class Verdict:
    """What the books and the provider say when everything is quiet again."""

    acked: int = 0
    answered: int = 0
    unknown_parts: int = 0
    honest: int = 0
    problems: list[str] = field(default_factory=list)


async def write(system: System, lead: Lead, stop: asyncio.Event, pace: random.Random) -> None:
    """Keeps writing until told to stop; repeats every webhook until it is accepted."""
    for line in SCRIPT * 50:
        if stop.is_set() or len(lead.sent) >= 18 * max(1, KILLS):
            return
        message_id = uuid.uuid4().hex.upper()
        await system.deliver(webhook(lead.contact, line, message_id=message_id), seconds=60)
        lead.sent.append(message_id)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pace.uniform(0.3, 2.5))


async def wait_for_turn_in_flight(system: System) -> None:
    """Until a worker has a turn."""
    async with asyncio.timeout(20):
        while True:
            stats = await system.buffer.GetStats(pb.GetStatsRequest(), timeout=5)
            if stats.running_turns:
                return
            await asyncio.sleep(0.01)


async def turns_of(system: System, contact: str) -> list[pb.Turn]:
    """Every ended turn of a contact, oldest first."""
    lane = await system.settled(contact, 1, seconds=60)
    return list(reversed(lane.ended_turns))


async def judge(system: System, leads: list[Lead]) -> Verdict:
    """Holds the buffer's books against what the provider got."""
    verdict = Verdict()
    for lead in leads:
        if not lead.sent:
            continue
        await system.settled(lead.contact, min(len(lead.sent), 18), seconds=60)
        turns = await turns_of(system, lead.contact)
        seen = Counter(m.message_id for t in turns for m in t.messages)
        verdict.acked += len(lead.sent)
        for message_id in lead.sent[-18:]:
            if seen[message_id] != 1:
                verdict.problems.append(f"{lead.contact}: {message_id} is in {seen[message_id]} turns")
        heard = Counter(system.heard(lead.contact))
        booked: Counter[str] = Counter()
        certain: Counter[str] = Counter()
        for turn in turns:
            judge_turn(verdict, lead, turn)
            for part in turn.parts:
                if part.state in (turn_pb2.PART_STATE_SENT, turn_pb2.PART_STATE_UNKNOWN):
                    booked[part.text] += 1
                if part.state == turn_pb2.PART_STATE_SENT:
                    certain[part.text] += 1
        if len(lead.sent) <= 18:
            for text in heard | booked:
                if heard[text] > booked[text]:
                    verdict.problems.append(
                        f"{lead.contact}: the provider got {heard[text]} times, booked {booked[text]}"
                    )
                if heard[text] < certain[text]:
                    verdict.problems.append(f"{lead.contact}: booked as sent {certain[text]}, got {heard[text]}")
    return verdict


def judge_turn(verdict: Verdict, lead: Lead, turn: pb.Turn) -> None:
    """One turn: whole, answered, in order."""
    states = [p.state for p in turn.parts]
    verdict.unknown_parts += states.count(turn_pb2.PART_STATE_UNKNOWN)
    if turn.kind == turn_pb2.TURN_KIND_APOLOGY or any("problema técnico" in p.text for p in turn.parts):
        verdict.honest += 1
    elif turn.end_reason == pb.Turn.END_REASON_FINISHED and turn.parts:
        verdict.answered += len(turn.messages)
    elif turn.end_reason != pb.Turn.END_REASON_PAUSED and turn.kind == turn_pb2.TURN_KIND_ANSWER:
        verdict.problems.append(f"{lead.contact}: turn {turn.turn_id} ended without an answer ({turn.end_reason})")
    if turn.truncated:
        verdict.problems.append(f"{lead.contact}: turn {turn.turn_id} was truncated after {len(turn.parts)} parts")
    if turn_pb2.PART_STATE_DROPPED in states and turn.end_reason != pb.Turn.END_REASON_PAUSED:
        verdict.problems.append(f"{lead.contact}: turn {turn.turn_id} dropped a part")


@on_the_modules_loop
@pytest.mark.parametrize("victim", SERVICES)
async def test_kill_9_loses_nothing_and_repeats_nothing(system: System, victim: str) -> None:
    pace = random.Random(victim)
    in_flight = 0
    leads: list[Lead] = []
    for round_number in range(2 * KILLS):
        mid_turn = round_number % 2 == 1
        stop = asyncio.Event()
        batch = [Lead(new_contact()) for _ in range(LEADS)]
        leads += batch
        writers = [asyncio.create_task(write(system, lead, stop, pace)) for lead in batch]
        if mid_turn:
            await asyncio.sleep(pace.uniform(0.3, 1.0))
            await wait_for_turn_in_flight(system)
            await asyncio.sleep(pace.uniform(0, 0.3))
            in_flight += 1
        dead = await system.kill(victim)
        await asyncio.sleep(pace.uniform(0.2, 1.0))
        await system.wait_back(victim, dead)
        await asyncio.sleep(pace.uniform(0.5, 2.0))
        stop.set()
        await asyncio.gather(*writers)
    verdict = await judge(system, leads)
    print(f"{victim}: {2 * KILLS} kills ({in_flight} in mid-turn), {verdict}")
    assert not verdict.problems, "\n".join(verdict.problems)
    assert in_flight and verdict.acked >= LEADS, "too little happened: the run proves nothing"
