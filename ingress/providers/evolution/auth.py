"""Whether a webhook comes from our Evolution. Every comparison is of bytes, in constant time, over all secrets."""

import hmac
import re
import warnings
from collections.abc import Callable

import jwt
from jwt.warnings import InsecureKeyLengthWarning

from ingress.providers import NotConfigured, Unauthorized, WebhookRequest
from ingress.providers.safe_json import number_of

# Evolution mints the token once per event, valid for 10 minutes, and repeats the event for up to 25: a refusal of the
# expired token would be final and lose the message.
_EVENT_SUFFIX = re.compile(r"/[a-z-]{1,40}\Z")
EXPIRY_LEEWAY_S = 45 * 60
_MAX_CREDENTIAL = 8192


class WebhookAuth:
    """Checks the static token and the JWT, whichever are configured."""

    def __init__(self, *, token: str, jwt_key: str, now_s: Callable[[], float]) -> None:
        self._token = token.encode("utf-8", "surrogatepass")
        self._jwt_key = jwt_key.encode("utf-8", "surrogatepass")
        self._now_s = now_s

    def authorize(self, request: WebhookRequest) -> None:
        """Return if one credential of the request is right; raises `Unauthorized` or `NotConfigured`."""
        if not self._token and not self._jwt_key:
            raise NotConfigured
        credentials = _credentials(request)
        if not credentials:
            raise Unauthorized("credential_missing")
        accepted = [self._is_token(given) | self._is_jwt(given) for given in credentials]
        if not any(accepted):
            raise Unauthorized("credential_wrong")

    def _is_token(self, given: bytes) -> bool:
        return hmac.compare_digest(given, self._token) and bool(self._token)

    def _is_jwt(self, given: bytes) -> bool:
        if not self._jwt_key:
            return False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", InsecureKeyLengthWarning)
                claims = jwt.decode(
                    given, self._jwt_key, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False}
                )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return False
        expires = number_of(claims.get("exp"))
        alive = expires is not None and self._now_s() <= expires + EXPIRY_LEEWAY_S
        return alive and claims.get("app") == "evolution" and claims.get("action") == "webhook"


def _credentials(request: WebhookRequest) -> list[bytes]:
    scheme, _, bearer = request.headers.get("authorization", "").strip().partition(" ")
    # A `+` comes as a space, which no configured token holds. byEvents appends the event to the whole URL, query too.
    token = request.query.get("token", "").replace(" ", "+")
    given = [bearer.strip() if scheme.lower() == "bearer" else "", token, _EVENT_SUFFIX.sub("", token)]
    return [value.encode("utf-8", "surrogatepass") for value in given if value and len(value) <= _MAX_CREDENTIAL]
