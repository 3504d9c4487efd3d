"""How long a reply waits: what a message sounds like, a person's pace, and the knobs."""

from __future__ import annotations

import pytest

from agentic_sdr.common.v1 import message_pb2
from bench.burst_generator import Pace
from bench.hold_curve import beaten, curve
from buffer_service.cues import cue_of
from buffer_service.settings import BufferSettings
from buffer_service.turn_taking import Policy, Strategy
from buffer_service.turn_taking.frames import Committed, Joined, Reason
from buffer_service.turn_taking.hold import AdaptiveHold, Cue
from service_kit.settings import ConfigurationError, load
from tests.buffer_service.test_turn_taking import Desk

F, N, U = Cue.FINISHED, Cue.NEUTRAL, Cue.UNFINISHED


@pytest.mark.parametrize(
    ("text", "cue"),
    [
        ("oi", U), ("Oi!", U), ("Olá, tudo bem?", U), ("bom dia", U), ("boa noite pessoal", U),
        ("e aí, tudo certo?", U),
        ("queria saber sobre", U), ("moro em Olinda e", U), ("na verdade,", U), ("então...", U), ("seguinte:", U),
        ("quanto custa?", F), ("Oi, quanto custa o sistema?", F), ("*600", F), ("obrigada!", F), ("valeu demais", F),
        ("quero um orçamento.", F), ("👍", F),
        ("a conta vem uns seiscentos reais por mês em média lá em casa", F),
        ("me chamo Ana", N), ("600 reais", N), ("sim", N), ("oitenta", N), ("   ", N), ("?", F),
    ],
)  # fmt: skip
def test_what_a_text_sounds_like(text: str, cue: Cue) -> None:
    assert cue_of(message_pb2.Message(type=message_pb2.MESSAGE_TYPE_TEXT, text=text)) is cue


@pytest.mark.parametrize(
    ("kind", "text", "cue"),
    [
        (message_pb2.MESSAGE_TYPE_IMAGE, "", U),
        (message_pb2.MESSAGE_TYPE_IMAGE, "essa é a conta.", F),
        (message_pb2.MESSAGE_TYPE_AUDIO, "", N),
        (message_pb2.MESSAGE_TYPE_CHOICE, "Financiamento", F),
        (message_pb2.MESSAGE_TYPE_UNSUPPORTED, "", N),
    ],
)
def test_what_other_kinds_sound_like(kind: message_pb2.MessageType.ValueType, text: str, cue: Cue) -> None:
    assert cue_of(message_pb2.Message(type=kind, text=text)) is cue


def test_an_average_follows_the_gaps_inside_thoughts_only() -> None:
    hold = AdaptiveHold()
    quick = 0
    for _ in range(20):
        quick = hold.average(quick, 300)
    assert 300 <= quick <= 310
    assert hold.average(quick, 60_000) == quick, "a silence between two thoughts says nothing about the pace"
    assert hold.average(0, 0) == 0, "two messages of one webhook"
    assert hold.after(U, quick) < hold.after(U, 0) < hold.after(U, 2_000)
    assert hold.after(F, 0) < hold.after(N, 0) < hold.after(U, 0)


def adaptive_desk() -> Desk:
    desk = Desk(Policy(strategy=Strategy.PREEMPT, hold=AdaptiveHold()))
    desk.core.read_cue = lambda body: Cue(body.decode())
    return desk


def waited(desk: Desk) -> int:
    """From now until the commit of the assigned turn is let go."""
    assign = desk.assigned()
    start = desk.now
    answers = desk.commit_parked(assign, "olá")
    assert not answers
    while not [f for f in desk.frames() if isinstance(f, Committed) and f.go]:
        desk.later(10)
    return desk.now - start


def test_the_hold_follows_the_cue_and_the_person() -> None:
    holds = AdaptiveHold()
    for cue in Cue:
        desk = adaptive_desk()
        desk.write(cue.value.encode())
        assert abs(waited(desk) - holds.after(cue, 0)) <= 20
    desk = adaptive_desk()
    for _ in range(8):
        desk.write(b"unfinished")
        desk.later(300)
    assert desk.lane.average_gap < 400
    [*_, last] = [f for f in desk.frames() if not isinstance(f, Committed)]
    assert isinstance(last, Joined) and last.wait < holds.after(U, 0)


def test_endless_typing_ends_at_the_cap() -> None:
    """`composing` presence keeps coming; the reply leaves all the same, max_hold after the turn opened."""
    desk = adaptive_desk()
    desk.write(b"finished")
    desk.commit_parked(desk.assigned(), "olá")
    start = desk.now
    while not (answers := [f for f in desk.frames() if isinstance(f, Committed)]):
        desk.core.presence(desk.now, "a", True)
        desk.core.settle(desk.now)
        desk.later(500)
    assert answers[0].go and desk.now - start <= Policy().max_hold + 500


def test_a_message_supersedes_a_parked_commit() -> None:
    desk = adaptive_desk()
    desk.write(b"neutral")
    desk.commit_parked(desk.assigned(), "olá")
    desk.write(b"neutral")
    refused = [f for f in desk.frames() if isinstance(f, Committed)]
    assert [f.refusal for f in refused] == [Reason.SUPERSEDED]
    assert desk.core.counters["restarts"] == 1


def settings(**environ: str) -> BufferSettings:
    return load(BufferSettings, environ=environ, env_file=None)


def test_profiles_set_the_knobs_and_a_knob_wins() -> None:
    assert settings().policy.hold == AdaptiveHold()
    assert settings().policy.strategy is Strategy.PREEMPT
    fast, patient = settings(SDR_BUFFER_PROFILE="fast").policy, settings(SDR_BUFFER_PROFILE="patient").policy
    assert isinstance(fast.hold, int) and isinstance(patient.hold, int)
    assert (fast.hold, fast.max_hold, fast.quiet) < (patient.hold, patient.max_hold, patient.quiet)
    classic = settings(SDR_BUFFER_PROFILE="classic").policy
    assert (classic.strategy, classic.fixed_delay) == (Strategy.FIXED_DELAY, 10_000)
    mine = settings(SDR_BUFFER_PROFILE="classic", SDR_BUFFER_FIXED_DELAY_MS="4000").policy
    assert (mine.strategy, mine.fixed_delay) == (Strategy.FIXED_DELAY, 4_000)


@pytest.mark.parametrize(
    "environ",
    [{"SDR_BUFFER_PROFILE": "slow"}, {"SDR_BUFFER_COMMIT_HOLD_MS": "adaptativo"}, {"SDR_BUFFER_COMMIT_HOLD_MS": "-1"}],
)
def test_a_wrong_knob_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(environ))):
        settings(**environ)


@pytest.mark.slow
@pytest.mark.parametrize("blind", [False, True], ids=["words", "blind"])
@pytest.mark.parametrize("model_ms", [300, 1_500])
def test_adaptive_beats_every_fixed_hold_on_the_curve(model_ms: int, blind: bool) -> None:
    """No fixed hold is better in both; between its neighbours on the curve, adaptive lies below the line."""
    points = curve(count=300, seed=3, model_ms=model_ms, pace=Pace(), blind=blind)
    [adaptive] = [p for p in points if p.hold == "adaptive"]
    fixed = [p for p in points if p is not adaptive]
    for point in fixed:
        assert not (
            point.median_added_ms <= adaptive.median_added_ms
            and point.replies_per_thought <= adaptive.replies_per_thought
        ), point
    assert blind or beaten(points), "with words that tell something it beats some in both"
    under = max((p for p in fixed if p.median_added_ms <= adaptive.median_added_ms), key=lambda p: p.median_added_ms)
    over = min((p for p in fixed if p.median_added_ms > adaptive.median_added_ms), key=lambda p: p.median_added_ms)
    share = (adaptive.median_added_ms - under.median_added_ms) / (over.median_added_ms - under.median_added_ms)
    best_under = min(p.replies_per_thought for p in fixed if p.median_added_ms == under.median_added_ms)
    line = best_under + share * (over.replies_per_thought - best_under)
    assert adaptive.replies_per_thought < line
