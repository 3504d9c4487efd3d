"""Webhooks that prove themselves, and all others; and settings that cannot work."""

import base64
import json
import time
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingress.providers import NotConfigured, Unauthorized, WebhookRequest
from ingress.providers.evolution import EvolutionProvider
from ingress.providers.evolution.auth import EXPIRY_LEEWAY_S, WebhookAuth
from ingress.providers.evolution.settings import EvolutionSettings
from service_kit.clock import ManualClock

TOKEN, KEY = "a-token-of-good-length", "a-key-for-jwt-of-thirty-two-bytes!"
NOW = 1_900_000_000.0
AUTH = WebhookAuth(token=TOKEN, jwt_key=KEY, now_s=lambda: NOW)


def request(authorization: str = "", *, token: str = "") -> WebhookRequest:
    headers = {"authorization": authorization} if authorization else {}
    return WebhookRequest(headers=headers, query={"token": token} if token else {}, path="/webhooks/evolution")


def accepted(given: WebhookRequest, auth: WebhookAuth = AUTH) -> bool:
    try:
        auth.authorize(given)
    except Unauthorized:
        return False
    return True


def minted(*, key: str = KEY, algorithm: str | None = "HS256", **claims: Any) -> str:
    payload = {"iat": int(NOW), "exp": int(NOW) + 600, "app": "evolution", "action": "webhook"} | claims
    return jwt.encode({k: v for k, v in payload.items() if v is not None}, key, algorithm=algorithm)


@pytest.mark.parametrize(
    "given_",
    [
        request(f"Bearer {TOKEN}"),
        request(f"bearer  {TOKEN} "),
        request(token=TOKEN),
        request("Bearer wrong", token=TOKEN),
        request(f"Bearer {minted()}"),
        request(token=minted()),
        request(f"Bearer {minted(exp=NOW - EXPIRY_LEEWAY_S + 1)}"),
    ],
)
def test_what_is_right_is_accepted(given_: WebhookRequest) -> None:
    assert accepted(given_)


@pytest.mark.parametrize(
    "given_",
    [
        request(),
        request("Bearer"),
        request(TOKEN),
        request(f"Basic {TOKEN}"),
        request(f"Bearer {TOKEN}, Bearer {TOKEN}"),
        request("Bearer ção\udcff\ud83d"),
        request(token="\ud83d\x00é"),
        request("Bearer " + "a" * 100_000),
        request(f"Bearer {minted(exp=NOW - EXPIRY_LEEWAY_S - 1)}"),
        request(f"Bearer {minted(exp=None)}"),
        request(f"Bearer {minted(app='other')}"),
        request(f"Bearer {minted(action='other')}"),
        request(f"Bearer {minted(key='another-key-for-jwt-of-thirty-two-b')}"),
        request(f"Bearer {minted(key='', algorithm='none')}"),
        request(f"Bearer {KEY}"),
        request("Bearer a.b.c"),
        request("Bearer " + ".".join([base64.b64encode(b"[" * 5000).decode()] * 3)),
    ],
)
def test_what_is_wrong_is_not(given_: WebhookRequest) -> None:
    assert not accepted(given_)


def test_a_token_from_before_its_retries_still_counts() -> None:
    """Evolution mints the JWT once, for 10 minutes, and repeats a failed webhook for up to 25: a 401 would be final."""
    assert EXPIRY_LEEWAY_S >= 30 * 60


@pytest.mark.parametrize(("token", "jwt_key"), [(TOKEN, ""), ("", KEY)])
def test_an_empty_secret_opens_nothing(token: str, jwt_key: str) -> None:
    auth = WebhookAuth(token=token, jwt_key=jwt_key, now_s=lambda: NOW)
    assert not accepted(request("Bearer "), auth)
    assert not accepted(request(f"Bearer {minted(key='x' * 32)}"), auth)
    assert not accepted(request(f"Bearer {jwt.encode({'app': 'evolution'}, 'k' * 32)}"), auth)


def test_without_settings_nobody_is_turned_away_for_good() -> None:
    with pytest.raises(NotConfigured):
        WebhookAuth(token="", jwt_key="", now_s=time.time).authorize(request(f"Bearer {TOKEN}"))
    provider = EvolutionProvider(settings=EvolutionSettings.model_validate({}), clock=ManualClock())
    with pytest.raises(NotConfigured):
        provider.authorize(request(f"Bearer {TOKEN}"))


MUTATION = st.tuples(st.integers(0, 400), st.characters())


@given(mutation=MUTATION, insert=st.booleans())
def test_no_changed_token_is_accepted(mutation: tuple[int, str], insert: bool) -> None:
    at, char = mutation[0] % len(TOKEN), mutation[1]
    changed = TOKEN[:at] + char + TOKEN[at + (0 if insert else 1) :]
    if changed.strip() != TOKEN:
        assert not accepted(request(f"Bearer {changed}"))
        assert not accepted(request(token=changed))


@given(mutation=MUTATION)
def test_no_changed_jwt_is_accepted(mutation: tuple[int, str]) -> None:
    good = minted()
    head, payload, signature = good.split(".")
    at, char = mutation[0] % len(good), mutation[1]
    changed = good[:at] + char + good[at + 1 :]
    parts = changed.strip().split(".")
    same = len(parts) == 3 and parts[:2] == [head, payload] and _decoded(parts[2]) == _decoded(signature)
    if not same:
        assert not accepted(request(f"Bearer {changed}"))


def _decoded(part: str) -> bytes | None:
    # The last character of base64 has bits that mean nothing.
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        return None


@given(
    claims=st.dictionaries(st.sampled_from(["exp", "app", "action", "iat", "nbf", "aud", "iss"]), st.none() | st.text())
)
def test_no_claims_raise(claims: dict[str, Any]) -> None:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    head = base64.urlsafe_b64encode(b'{"alg":"HS256"}').decode().rstrip("=")
    assert not accepted(request(f"Bearer {head}.{body}.AAAA"))
    signed = jwt.PyJWS().encode(json.dumps(claims | {"app": "other"}).encode(), KEY, algorithm="HS256")
    assert not accepted(request(f"Bearer {signed}"))


GOOD = {
    "EVOLUTION_API_URL": "https://evo.example.test/base",
    "EVOLUTION_API_KEY": "key",
    "EVOLUTION_WEBHOOK_TOKEN": TOKEN,
}


@pytest.mark.parametrize(
    "settings", [{}, GOOD, {"EVOLUTION_INSTANCE": "x"}, GOOD | {"EVOLUTION_API_URL": "http://127.0.0.1:8080/"}]
)
def test_settings_that_work(settings: dict[str, str]) -> None:
    assert EvolutionSettings.model_validate(settings).evolution_is_configured == ("EVOLUTION_API_URL" in settings)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"EVOLUTION_WEBHOOK_TOKEN": ""}, "anybody could send webhooks"),
        ({"EVOLUTION_API_KEY": ""}, "EVOLUTION_API_KEY is not"),
        ({"EVOLUTION_WEBHOOK_TOKEN": "short"}, "shorter than 16"),
        ({"EVOLUTION_WEBHOOK_JWT_KEY": "short"}, "EVOLUTION_WEBHOOK_JWT_KEY is shorter"),
        ({"EVOLUTION_WEBHOOK_TOKEN": TOKEN + "\n"}, "EVOLUTION_WEBHOOK_TOKEN holds spaces"),
        ({"EVOLUTION_API_KEY": '"key"'}, "EVOLUTION_API_KEY holds spaces, quotes"),
        ({"EVOLUTION_API_KEY": "key\r\nX: y"}, "EVOLUTION_API_KEY holds"),
        ({"EVOLUTION_API_URL": ""}, "EVOLUTION_API_URL is not set"),
        ({"EVOLUTION_API_URL": "ftp://evo"}, "not an http or https address"),
        ({"EVOLUTION_API_URL": "evo.example.test"}, "not an http or https address"),
        ({"EVOLUTION_API_URL": "http://evo:99999"}, "not an address"),
        ({"EVOLUTION_API_URL": "http://evo/\n"}, "not an http or https address"),
        ({"EVOLUTION_API_URL": "http://me:pass@evo"}, "user name or password"),
        ({"EVOLUTION_API_URL": "http://evo/?apikey=1"}, "query"),
        # The buffer would refuse every webhook that names no instance, for ever.
        ({"EVOLUTION_INSTANCE": "loja\tdemo"}, "EVOLUTION_INSTANCE cannot be"),
        ({"EVOLUTION_INSTANCE": "😀" * 100}, "EVOLUTION_INSTANCE cannot be"),
        ({"EVOLUTION_INSTANCE": ".."}, "EVOLUTION_INSTANCE cannot be"),
    ],
)
def test_settings_that_cannot_work_are_named_without_their_value(change: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence) as caught:
        EvolutionSettings.model_validate(GOOD | change)
    message = caught.value.errors()[0]["msg"]
    assert TOKEN not in message and "pass@" not in message


def test_a_token_in_the_address_survives_what_evolution_and_addresses_do_to_it() -> None:
    """byEvents appends the event to the whole URL, and a `+` comes as a space: both were a final 401."""
    assert accepted(request(token=f"{TOKEN}/messages-upsert"))
    plus = WebhookAuth(token="abc+def+ghi+jkl+mno", jwt_key="", now_s=lambda: NOW)
    assert accepted(request(token="abc def ghi jkl mno"), plus)
    assert not accepted(request(token="/messages-upsert"))
    assert not accepted(request(token=f"{TOKEN}/a/b"))
