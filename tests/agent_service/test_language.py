"""A language model through the whole agent: tools and rounds, what it costs, budgets, summaries, warm-up and health."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, cast

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent_service.app import AgentApp
from agent_service.conversation import Author, Line, TextDelta, Turn
from agent_service.models.budgets import limit_reply
from agentic_sdr.agent.v1 import agent_service_pb2 as pb
from agentic_sdr.agent.v1 import agent_service_pb2_grpc as rpc
from agentic_sdr.common.v1 import lead_pb2, message_pb2
from service_kit import errors
from service_kit.durations import ms_to_timestamp
from service_kit.settings import ConfigurationError
from service_kit.testing import in_process
from tests.agent_service.language import TIMEOUT_S, ask, frames, serving, settings_for, until_warm
from tests.agent_service.talking import MONDAY_10H, demo, messages
from tests.stand_ins.openai_server import MODEL, Answer, Called, OpenAIServer, Told, calls, refuses, says

REAL = f"openai:{MODEL}"
NAME = Called(name="update_lead", arguments='{"name": "João", "bill_value": "4mil"}', call_id="a")
HUMAN = Called(name="handoff_to_human", arguments='{"reason": "pediu uma pessoa"}', call_id="b")
PRICED = {"SDR_AGENT_PRICES": f"{MODEL}=1/0.1/4"}


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as running:
        yield running


def told(server: OpenAIServer, number: int = -1) -> list[dict[str, Any]]:
    """The messages of one of the calls."""
    return server.turns[number].messages


async def test_tools_are_read_answered_and_fed_back(server: OpenAIServer) -> None:
    server.script.extend([calls(NAME, HUMAN), says("Oi, João! A equipe continua com você.")])
    async with serving(server) as stub:
        heard = await ask(stub, "sou o João, pago 4 mil e quero falar com alguém")
    assert heard.order == ["effect", "effect", "text", "usage", "done"], "what the words stand on comes before them"
    update, handoff = heard.effects
    assert (update.lead_update.name, update.lead_update.bill_value_cents) == ("João", 400_000)
    assert handoff.handoff.reason == "pediu uma pessoa" and heard.reason == "STOP"
    assistant, *answers = told(server)[-3:]
    assert [call["id"] for call in assistant["tool_calls"]] == ["a", "b"]
    assert [(each["role"], each["tool_call_id"]) for each in answers] == [("tool", "a"), ("tool", "b")]
    assert told(server, 0) == told(server)[:-3], "the second call goes on after the first one's bytes"


async def test_what_is_wrong_with_a_call_is_told_to_the_model_alone(server: OpenAIServer) -> None:
    wrong = Called(name="update_lead", arguments='{"bill_value": -3, "recipient": "5581999990000"}')
    server.script.extend([calls(wrong), says("Quanto vem a sua conta?")])
    async with serving(server) as stub:
        heard = await ask(stub)
    assert heard.text == "Quanto vem a sua conta?" and not heard.effects
    assert told(server)[-1]["role"] == "tool" and told(server)[-1]["content"]


async def test_the_same_call_again_has_no_second_effect(server: OpenAIServer) -> None:
    server.script.extend([calls(NAME), calls(NAME), says("Oi, João!")])
    async with serving(server) as stub:
        heard = await ask(stub)
    assert len(heard.effects) == 1 and heard.text == "Oi, João!" and len(server.turns) == 3


async def test_of_calls_that_contradict_the_latest_counts(server: OpenAIServer) -> None:
    """Back to a value that an earlier call had given was taken for a repetition, and the one in between stayed."""
    other = Called(name="update_lead", arguments='{"name": "Pedro"}', call_id="c")
    server.script.extend([calls(NAME, other, NAME), says("Oi, João!")])
    async with serving(server) as stub:
        heard = await ask(stub)
    assert [each.lead_update.name for each in heard.effects] == ["João", "Pedro", "João"]


async def test_a_human_is_called_once_whatever_the_reasons(server: OpenAIServer) -> None:
    other = Called(name="handoff_to_human", arguments='{"reason": "reclamou"}', call_id="d")
    server.script.extend([calls(HUMAN, other), says("A equipe continua com você.")])
    async with serving(server) as stub:
        heard = await ask(stub)
    assert [each.handoff.reason for each in heard.effects] == ["pediu uma pessoa"]


async def test_words_before_and_after_a_call_are_two_bubbles(server: OpenAIServer) -> None:
    server.script.extend([calls(NAME, pieces=("Prazer, João!",)), says("Qual a sua cidade?")])
    async with serving(server) as stub:
        heard = await ask(stub)
    assert heard.text == "Prazer, João!\n\nQual a sua cidade?" and len(heard.effects) == 1


@pytest.mark.parametrize(
    "script",
    [[calls(HUMAN), says()], [calls(HUMAN)] * 3, [calls(HUMAN, finish="length"), says()]],
    ids=["it says nothing", "it calls for ever", "it was cut"],
)
async def test_a_hand_over_without_words_gets_the_persona_s(server: OpenAIServer, script: list[Answer]) -> None:
    """The lead had asked for a person, and was answered by silence for as long as nobody looked."""
    server.script.extend(script)
    async with serving(server) as stub:
        heard = await ask(stub)
        again = says_handed_over(heard.text)
        server.script.extend(script)
        second = await ask(stub, version=2, history=[again])
    assert heard.text in demo().sentences.handoff and heard.order[:2] == ["effect", "text"]
    assert heard.done is not None and heard.done.model == REAL and not heard.done.fallback
    assert [each.WhichOneof("effect") for each in heard.effects] == ["handoff"]
    assert second.text in demo().sentences.handoff and second.text != heard.text, "nobody hears the same twice"


async def test_a_hand_over_that_goes_on_after_a_crash_is_not_doubled(server: OpenAIServer) -> None:
    server.script.extend([calls(HUMAN), says()])
    async with serving(server) as stub:
        requests = frames(("oi",), "c-1", 10_000, {})
        requests[0].begin.said.append("Já passei pra equipe.")
        responses = [response async for response in stub.Respond(iter(requests), timeout=TIMEOUT_S)]
    assert [response.WhichOneof("frame") for response in responses] == ["effect", "usage", "done"]


def says_handed_over(text: str) -> lead_pb2.HistoryMessage:
    sent = ms_to_timestamp(MONDAY_10H - 60_000)
    return lead_pb2.HistoryMessage(author=message_pb2.AUTHOR_ASSISTANT, text=text, create_time=sent, sequence=2)


@pytest.mark.parametrize("words", [("A equipe continua com você. ", "Até já!"), ("A equipe continua com você.",)])
async def test_a_hand_over_with_words_needs_no_further_call(server: OpenAIServer, words: tuple[str, ...]) -> None:
    """A single sentence waited for the next one and did not count as said: the model was asked to say it once more."""
    server.script.append(calls(HUMAN, pieces=words))
    async with serving(server) as stub:
        heard = await ask(stub)
    assert heard.reason == "STOP" and heard.text == "".join(words) and len(server.turns) == 1


async def test_thoughts_beside_a_hand_over_are_no_words(server: OpenAIServer) -> None:
    server.script.extend(
        [calls(HUMAN, pieces=("<think>Ela quer alguém.</think>",)), says("A equipe continua com você.")]
    )
    async with serving(server) as stub:
        heard = await ask(stub)
    assert heard.text == "A equipe continua com você." and len(server.turns) == 2


async def test_a_loop_of_tools_after_words_ends_the_reply(server: OpenAIServer) -> None:
    server.script.extend([calls(NAME, pieces=("Prazer, João! Vamos lá.",)), calls(NAME), calls(NAME)])
    async with serving(server) as stub:
        heard = await ask(stub)
    assert heard.reason == "LENGTH" and heard.text.startswith("Prazer, João!") and len(server.turns) == 3


async def test_what_was_said_beside_calls_that_never_stop_is_said_whole(server: OpenAIServer) -> None:
    """The last sentence waited for the next one, and was lost with the loop: all of a short reply, so that the playbook
    spoke instead."""
    server.script.extend([calls(NAME, pieces=("Prazer, João! Vamos lá.",)), calls(NAME), calls(NAME)])
    async with serving(server) as stub:
        assert (await ask(stub)).text == "Prazer, João! Vamos lá."
        server.script.extend([calls(NAME, pieces=("Prazer, João!",)), calls(NAME), calls(NAME)])
        heard = await ask(stub)
    assert heard.done is not None and (heard.text, heard.done.model) == ("Prazer, João!", REAL)
    assert [each.lead_update.name for each in heard.effects] == ["João"]


async def test_arguments_that_are_no_json_are_not_sent_back(server: OpenAIServer) -> None:
    """vLLM and others parse the calls of earlier rounds, and refuse the whole request for one that they can't."""
    half = Called(name="update_lead", arguments='{"name": "Jo')
    server.script.extend([calls(half, NAME), says("Oi, João!")])
    async with serving(server) as stub:
        assert (await ask(stub)).text == "Oi, João!"
    asked = [call["function"]["arguments"] for call in told(server)[-3]["tool_calls"]]
    assert asked == ["{}", NAME.arguments] and "JSON" in told(server)[-2]["content"]


async def test_a_call_that_hung_is_paid_for(server: OpenAIServer) -> None:
    """A provider that thinks longer than we wait has read the prompt; nobody counted it, and no budget ended it."""
    server.script.append(Answer(fault="hang"))
    async with serving(server, SDR_AGENT_FIRST_TOKEN_MS="200", **PRICED) as stub:
        hung = await ask(stub)
        server.script.extend([refuses(400)])
        refused = await ask(stub)
    assert hung.usage is not None and hung.usage.prompt_tokens > 1_000 and hung.usage.cost_micros > 1_000
    assert refused.usage is None, "what was refused costs nothing"


@pytest.mark.parametrize("fallback", [True, False], ids=["the playbook follows", "nobody follows"])
@pytest.mark.parametrize("answer", [Answer(fault="hang"), says("Bom ", "dia, ", fault="hang_after")])
async def test_a_call_that_the_chain_cuts_off_is_paid_for(server: OpenAIServer, answer: Answer, fallback: bool) -> None:
    """The share of time that the chain gives each model ended the call from outside, and its tokens were in no book."""
    server.script.append(answer)
    patient = {"SDR_AGENT_FIRST_TOKEN_MS": "60000", "SDR_AGENT_IDLE_MS": "60000"}
    seen: list[pb.Usage] = []
    async with serving(server, **patient, **PRICED, SDR_AGENT_PLAYBOOK_FALLBACK=str(fallback).lower()) as stub:
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for response in stub.Respond(iter(frames(("oi",), "c-1", 3_000, {})), timeout=TIMEOUT_S):
                if response.HasField("usage"):
                    seen.append(response.usage)
    [usage] = seen
    assert usage.prompt_tokens > 1_000 and usage.cost_micros > 1_000
    assert (usage.completion_tokens > 0) == bool(answer.pieces)


async def test_a_tool_s_name_is_not_logged(server: OpenAIServer) -> None:
    """It is the model's text: an obedient one calls a tool by the lead's number."""
    server.script.extend([calls(Called(name="enviar_5581977776666")), says("Oi!")])
    with structlog.testing.capture_logs() as logged:
        async with serving(server) as stub:
            await ask(stub)
    assert [each["tool"] for each in logged if each["event"] == "tool_call_refused"] == ["unlisted"]
    assert "5581977776666" not in str(logged)


async def test_effects_of_a_model_that_failed_have_not_happened(server: OpenAIServer) -> None:
    server.script.extend([calls(NAME, HUMAN), refuses(400)])
    async with serving(server) as stub:
        heard = await ask(stub, "oi")
    assert heard.done is not None and heard.done.model == "playbook"
    assert not [each for each in heard.effects if each.HasField("handoff") or each.lead_update.name]


async def test_what_a_reply_costs(server: OpenAIServer) -> None:
    server.script.extend(
        [
            calls(NAME, told=Told(prompt=1_000, cached=0, completion=20)),
            says("Oi, João!", told=Told(prompt=1_100, cached=1_000, completion=10)),
        ]
    )
    async with serving(server, **PRICED) as stub:
        heard = await ask(stub)
        agent = await until_warm(stub)
    assert heard.usage == pb.Usage(
        prompt_tokens=2_100, cached_tokens=1_000, completion_tokens=30, cost_micros=1_000 + 20 * 4 + 100 + 100 + 10 * 4
    )
    assert agent.models[0].cached_tokens == 1_000


async def test_tokens_are_estimated_where_the_server_does_not_tell(server: OpenAIServer) -> None:
    server.script.extend([says("Oi! Tudo bem?", fault="no_usage"), says("Oi! Tudo ", fault="reset_after")])
    async with serving(server, **PRICED) as stub:
        for _ in range(2):
            heard = await ask(stub)
            assert heard.usage is not None
            assert heard.usage.prompt_tokens > 1_000 and heard.usage.completion_tokens > 1
            assert heard.usage.cost_micros > 1_000


@pytest.mark.parametrize("scope", ["conversation", "tenant"])
async def test_a_used_up_budget_makes_no_call(server: OpenAIServer, scope: str) -> None:
    environ = {f"SDR_AGENT_DAILY_TOKENS_PER_{scope.upper()}": "1000"}
    below = lead_pb2.UsageToday(**{f"{scope}_tokens": 999})
    above = lead_pb2.UsageToday(**{f"{scope}_tokens": 1_000})
    async with serving(server, **environ) as stub:
        assert (await ask(stub, usage=below)).done.model == REAL  # type: ignore[union-attr]
        heard = await ask(stub, usage=above)
        assert len(server.turns) == 1 and heard.text == demo().limit_sentence
        assert heard.done is not None and heard.done.fallback and heard.done.fallback_reason == "budget"
        assert [each.WhichOneof("effect") for each in heard.effects] == ["handoff"]
        assert heard.usage is None
        today, yesterday = said_limit(MONDAY_10H - 3_600_000), said_limit(MONDAY_10H - 24 * 3_600_000)
        assert (await ask(stub, usage=above, version=2, history=[today])).reason == "SILENT"
        assert (await ask(stub, usage=above, version=2, history=[yesterday])).text == demo().limit_sentence
    assert len(server.turns) == 1


@pytest.mark.parametrize(
    ("said_at", "asked_at", "again"),
    [
        ("2026-03-09T23:00Z", "2026-03-10T02:00Z", True),  # 20:00 and 23:00 of one evening in Recife
        ("2026-03-10T01:00Z", "2026-03-10T11:00Z", True),  # 22:00, and 8:00 of the next day
        ("2026-03-10T11:00Z", "2026-03-10T23:00Z", False),  # 8:00 and 20:00 of one day
    ],
)
def test_the_limit_is_said_once_a_day(said_at: str, asked_at: str, again: bool) -> None:
    """The budget's day is UTC's, "said today" was the business's: a budget that came back at 21:00 and was used up once
    more the same evening was silence, and no human was called."""
    said_ms, now_ms = (round(datetime.fromisoformat(each).timestamp() * 1000) for each in (said_at, asked_at))
    line = Line(author=Author.ASSISTANT, text=demo().limit_sentence, sent_ms=said_ms, fallback=True)
    events = list(limit_reply(demo(), Turn(messages=messages("oi"), now_ms=now_ms, history=(line,))))
    assert any(isinstance(event, TextDelta) for event in events) == again


def said_limit(sent_ms: int) -> lead_pb2.HistoryMessage:
    return lead_pb2.HistoryMessage(
        author=message_pb2.AUTHOR_ASSISTANT,
        text=demo().limit_sentence,
        create_time=ms_to_timestamp(sent_ms),
        sequence=2,
        fallback=True,
    )


@pytest.mark.parametrize("guarded", [True, False])
async def test_two_machines_do_not_talk_for_ever(server: OpenAIServer, guarded: bool) -> None:
    automatic = "Olá! Esta é uma mensagem automática. Retornaremos em breve."
    lines = []
    for number in range(12):
        author = message_pb2.AUTHOR_ASSISTANT if number % 2 else message_pb2.AUTHOR_LEAD
        text = f"Qual a sua cidade? {number}" if number % 2 else automatic
        sent = ms_to_timestamp(MONDAY_10H - (12 - number) * 2_000)
        lines.append(lead_pb2.HistoryMessage(author=author, text=text, sequence=number + 1, create_time=sent))
    async with serving(server, SDR_AGENT_LOOP_GUARD=str(guarded)) as stub:
        heard = await ask(stub, automatic, version=12, history=lines)
    if not guarded:
        assert heard.done is not None and heard.done.model == REAL
        return
    assert heard.reason == "SILENT" and heard.effects[0].HasField("handoff") and not server.turns
    assert heard.done is not None and heard.done.fallback_reason == "loop"


def long_history() -> list[lead_pb2.HistoryMessage]:
    return [
        lead_pb2.HistoryMessage(
            author=message_pb2.AUTHOR_LEAD if number % 2 else message_pb2.AUTHOR_ASSISTANT,
            text=f"linha {number} " + "da conversa " * 20,
            sequence=number,
        )
        for number in range(1, 60)
    ]


@pytest.mark.parametrize(
    ("answer", "least", "most"),
    [
        (says("<|im_start|>", told=Told(prompt=900, completion=30)), (930, 1_020), (930, 1_020)),
        (says("João quer", fault="reset_after"), (200, 200), (10_000, 20_000)),
        (Answer(fault="hang"), (200, 200), (10_000, 10_000)),
        (refuses(400), None, None),
    ],
    ids=["unfit", "half", "hung", "refused"],
)
async def test_a_summary_that_failed_is_paid_for(
    server: OpenAIServer, answer: Answer, least: tuple[int, int] | None, most: tuple[int, int] | None
) -> None:
    server.script.append(answer)
    async with serving(server, **PRICED, SDR_AGENT_FIRST_TOKEN_MS="300") as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            request = pb.SummarizeRequest(conversation_id="c-1", history=long_history())
            await stub.Summarize(request, timeout=TIMEOUT_S)
    failed = errors.parse(caught.value)
    assert failed.reason == "MODEL_FAILED"
    if least is None or most is None:
        assert failed.metadata == {"model": REAL}
        return
    told = int(failed.metadata["tokens"]), int(failed.metadata["cost_micros"])
    assert all(low <= value <= high for low, value, high in zip(least, told, most, strict=True))


async def test_a_summary_with_its_reach(server: OpenAIServer) -> None:
    server.script.append(says("João paga 4 mil por mês e quer saber do prazo.", told=Told(prompt=900, completion=30)))
    lines = long_history()
    async with serving(server, **PRICED) as stub:
        request = pb.SummarizeRequest(conversation_id="c-1", history=lines, lead=lead_pb2.Lead(name="João"))
        made = await stub.Summarize(request, timeout=TIMEOUT_S)
        short = await stub.Summarize(pb.SummarizeRequest(conversation_id="c-1", history=lines[:3]), timeout=TIMEOUT_S)
    assert made.summary.startswith("João paga 4 mil") and made.model == REAL
    assert 8 <= made.through_sequence < 59 and made.usage.cost_micros == 900 + 4 * 30
    assert short.summary == "" and short.through_sequence == 0 and len(server.turns) == 1


async def test_a_summary_that_was_cut_ends_with_its_last_sentence(server: OpenAIServer) -> None:
    """It was thrown away and asked for again with the next turn, at the same price and with the same end. A reasoning
    model needs the room that replies have."""
    server.script.append(says("João paga 4 mil por mês. Ele quer saber do prazo. Depois", finish="length"))
    lines = [lead_pb2.HistoryMessage(author=message_pb2.AUTHOR_LEAD, text="oi " * 50, sequence=n) for n in range(1, 60)]
    async with serving(server, SDR_AGENT_MAX_OUTPUT_TOKENS="3000") as stub:
        made = await stub.Summarize(pb.SummarizeRequest(history=lines), timeout=TIMEOUT_S)
    assert made.summary == "João paga 4 mil por mês. Ele quer saber do prazo."
    assert server.turns[0].body["max_tokens"] == 3_000


async def test_a_summary_that_can_not_be_had(server: OpenAIServer) -> None:
    server.otherwise = refuses(500)
    lines = [lead_pb2.HistoryMessage(author=message_pb2.AUTHOR_LEAD, text="oi " * 50, sequence=n) for n in range(1, 60)]
    async with serving(server) as stub:
        failed = await refusal(stub, pb.SummarizeRequest(history=lines))
        refused = await refusal(stub, pb.SummarizeRequest(history=lines * 20))
    assert (failed.reason, failed.metadata) == ("MODEL_FAILED", {"model": REAL})
    assert (refused.reason, refused.metadata) == ("INVALID_ARGUMENT", {"field": "history"})


async def refusal(stub: Any, request: pb.SummarizeRequest) -> errors.ParsedError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Summarize(request, timeout=TIMEOUT_S)
    return errors.parse(caught.value)


async def test_a_cancelled_turn_stops_the_stream_at_the_server(server: OpenAIServer) -> None:
    server.script.append(says(*["Olá, tudo bem? "] * 10_000, pause_s=0.01))
    async with serving(server, SDR_AGENT_IDLE_MS="5000") as stub:
        call = cast(Any, stub).Respond(timeout=TIMEOUT_S)
        for request in frames(("oi",), "c-1", 10_000, {}):
            await call.write(request)
        while (await call.read()).WhichOneof("frame") != "text":
            pass
        assert server.open_streams == 1
        call.cancel()
        async with asyncio.timeout(TIMEOUT_S):
            while server.open_streams or not server.turns[0].left:
                await asyncio.sleep(0.005)
    assert server.turns[0].generated < 1_000, "nobody reads it, so nobody pays for it"


async def test_two_hundred_turns_use_the_warm_connection(server: OpenAIServer) -> None:
    async with serving(server) as stub:
        for number in range(200):
            await ask(stub, "oi", conversation=f"c-{number}")
        agent = await until_warm(stub)
    [model, playbook] = agent.models
    assert server.connections == 1 and (model.connections_opened, model.open_streams) == (1, 0)
    assert model.name == REAL and model.calls == 201 and model.HasField("connection_age")
    assert playbook.name == "playbook" and playbook.available and not playbook.calls
    assert len(agent.last_first_tokens) == 20 and agent.replies == 200


async def test_the_prefix_is_primed_with_the_bytes_that_every_turn_sends(server: OpenAIServer) -> None:
    async with serving(server) as stub:
        await ask(stub)
        agent = await until_warm(stub)
    warm_up, turn = server.asked
    assert warm_up.is_warm_up and turn.messages[0] == warm_up.messages[0]
    assert json.dumps(turn.body["tools"]) == json.dumps(warm_up.body["tools"])
    names = [step.name for step in agent.steps]
    assert names[-2:] == [f"{REAL} opened", f"{REAL} prefix_primed"] and agent.models[0].HasField("cold_start")
    assert agent.persona_version and agent.model == REAL and not agent.costs_money


async def test_a_wrong_key_does_not_start(server: OpenAIServer) -> None:
    server.models_status = 401
    app = AgentApp(settings_for(server))
    try:
        with pytest.raises(ConfigurationError, match="OPENAI_API_KEY was refused"):
            await app.open()
            await app.run_background()
    finally:
        await app.close()


async def test_a_server_that_is_not_there_yet_is_replaced_by_the_playbook(server: OpenAIServer) -> None:
    async with serving(server, OPENAI_BASE_URL="http://127.0.0.1:9/v1") as stub:
        heard = await ask(stub)
        agent = await until_warm(stub)
    assert heard.done is not None
    assert (heard.done.model, heard.done.fallback_reason) == ("playbook", "unreachable")
    assert [(model.available, model.trouble) for model in agent.models] == [(False, "unreachable"), (True, "")]
    assert agent.state == pb.AGENT_STATE_READY


async def test_without_the_playbook_health_says_that_nobody_can_serve(server: OpenAIServer) -> None:
    server.warm_up = refuses(503)
    app = AgentApp(settings_for(server, SDR_AGENT_PLAYBOOK_FALLBACK="false"))
    async with in_process(app) as channel:
        health, stub = cast(Any, health_pb2_grpc.HealthStub(channel)), rpc.AgentServiceStub(channel)
        check = health_pb2.HealthCheckRequest(service="agentic_sdr.agent.v1.AgentService")
        agent = await until_warm(stub)
        assert agent.state == pb.AGENT_STATE_FAILED
        assert (await health.Check(check, timeout=TIMEOUT_S)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        server.warm_up = says("o")
        async with asyncio.timeout(TIMEOUT_S):
            while (await health.Check(check, timeout=TIMEOUT_S)).status != health_pb2.HealthCheckResponse.SERVING:
                await asyncio.sleep(0.05)
        assert (await ask(stub)).done.model == REAL  # type: ignore[union-attr]


async def test_fifty_turns_at_once_and_none_knows_of_another(server: OpenAIServer) -> None:
    """The server echoes what it is told; each lead may hear of their own words alone (promises I5)."""

    def echo(asked: Any) -> Answer:
        word = asked.messages[-1]["content"].rsplit("palavra", 1)[-1].split()[0]
        return says("Você disse ", f"palavra {word}.", wait_s=0.05)

    server.otherwise = echo
    async with serving(server) as stub:
        heard = await asyncio.gather(
            *(ask(stub, f"minha palavra w{number}x", conversation=f"c-{number}") for number in range(50))
        )
    assert [each.text for each in heard] == [f"Você disse palavra w{number}x." for number in range(50)]
