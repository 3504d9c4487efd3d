"""Supabase's gateway: which role an API key stands for.

A key of the new kind (`sb_secret_…`, `sb_publishable_…`) is no JWT; the gateway replaces it by a short-lived one for
its role. A legacy key is itself a JWT with a `role` claim. A user's token may stand in `Authorization` beside the key;
a new key there is accepted only when it is the same as in `apikey`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt

from tests.stand_ins.postgrest.errors import PostgrestError

TEST_SECRET: Final = "a-secret-that-signs-tokens-of-the-stand-in-only"
_ROLES: Final = ("anon", "authenticated", "service_role")


class GatewayRefusal(Exception):
    """The gateway lets the request not through; its body differs from PostgREST's."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.body: Final = {"message": message, "hint": hint}


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Whom PostgreSQL will see."""

    role: str
    claims: Mapping[str, Any]


def legacy_key(role: str, *, secret: str = TEST_SECRET, **claims: Any) -> str:
    """A JWT as the legacy keys are; `claims` add to it, e.g. `exp` or `sub`."""
    return jwt.encode({"iss": "supabase", "role": role, **claims}, secret, algorithm="HS256")


@dataclass(frozen=True, kw_only=True)
class Keys:
    """A project's keys."""

    secret: str = "sb_secret_of_the_stand_in"
    publishable: str = "sb_publishable_of_the_stand_in"
    jwt_secret: str = TEST_SECRET
    legacy_anonymous: str = field(default_factory=lambda: legacy_key("anon"))
    legacy_service: str = field(default_factory=lambda: legacy_key("service_role"))

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Who asks. Raises GatewayRefusal for the key, PostgrestError for the token in `Authorization`."""
        key = headers.get("apikey", "")
        if not key:
            raise GatewayRefusal("No API key found in request", "No `apikey` request header or url param was found.")
        role = self._role_of_key(key)
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or token in ("", key):
            return Caller(role=role, claims={"role": role})
        return self._bearer(token)

    def _role_of_key(self, key: str) -> str:
        known = {
            self.secret: "service_role",
            self.publishable: "anon",
            self.legacy_anonymous: "anon",
            self.legacy_service: "service_role",
        }
        if key not in known:
            raise GatewayRefusal("Invalid API key", "Double check your Supabase `anon` or `service_role` API key.")
        return known[key]

    def _bearer(self, token: str) -> Caller:
        parts = token.count(".") + 1
        if parts != 3:
            raise _unauthorized("PGRST301", f"Expected 3 parts in JWT; got {parts}")
        try:
            claims = jwt.decode(token, self.jwt_secret, algorithms=["HS256"], options={"verify_aud": False})
        except jwt.ExpiredSignatureError:
            raise _unauthorized("PGRST303", "JWT expired") from None
        except jwt.InvalidTokenError:
            raise _unauthorized("PGRST301", "No suitable key or wrong key type") from None
        return Caller(role=str(claims.get("role", "anon")), claims=claims)


def _unauthorized(code: str, message: str) -> PostgrestError:
    return PostgrestError(status=401, code=code, message=message)
