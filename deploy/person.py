"""One person, as who runs the business names them, and what the running services do about them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc

from agentic_sdr.buffer.v1 import buffer_service_pb2
from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceStub
from agentic_sdr.context.v1 import context_service_pb2
from agentic_sdr.context.v1.context_service_pb2_grpc import ContextServiceStub
from deploy.probe import CHANNEL_OPTIONS, reachable
from deploy.settings import SystemSettings
from ingress.providers.aliases import alias_of, parse_jid, phone_from_text
from service_kit.errors import parse

# A file is rebuilt by it, which takes as long as copying it.
_FORGET_S = 1800.0
_EXPORT_S = 1800.0
_PREFIXES = ("phone", "lid", "bsuid")


class PersonError(Exception):
    """It could not be done; the text says why, to whoever asked."""


class Unknown(PersonError):
    """The service has nothing about them."""


@dataclass(frozen=True, kw_only=True)
class Erased:
    """How much of a person is gone."""

    buffer_conversations: int
    buffer_messages: int
    leads: int
    conversations: int
    messages: int

    @property
    def nothing(self) -> bool:
        """There was nothing."""
        return not (self.buffer_conversations or self.leads)


class HalfErased(PersonError):
    """The buffer has erased its part and the context has not; a repeat needs the buffer's conversations."""

    def __init__(self, why: str, conversation_ids: tuple[str, ...]) -> None:
        super().__init__(why)
        self.conversation_ids = conversation_ids


def alias(given: str) -> str:
    """The alias under which the services know somebody: from a phone number in any spelling, with or without the ninth
    digit, from `lid:…`, `bsuid:…`, or from a provider's address. Raises PersonError."""
    text = given.strip()
    jid = parse_jid(text)
    if jid.is_person:
        return alias_of(jid)
    prefix, colon, name = text.partition(":")
    if colon and prefix.lower() in _PREFIXES[1:] and name.strip():
        return f"{prefix.lower()}:{name.strip()}"
    if colon and prefix.lower() != "phone":
        raise PersonError(f"{given!r} names nobody: a phone number, lid:… or bsuid:… does.")
    phone = phone_from_text(name if colon else text)
    if phone is None:
        raise PersonError(f"{given!r} is no phone number: digits with the country code, such as +55 81 99999-0001.")
    return f"phone:{phone}"


def forget(
    settings: SystemSettings,
    who: str,
    *,
    tenant: str = "",
    do_not_contact: bool = False,
    conversation_ids: tuple[str, ...] = (),
) -> Erased:
    """Erase them, from the buffer first, so that nothing new can be recorded. Safe to repeat. Raises PersonError;
    HalfErased when the context did not do its part."""
    request = buffer_service_pb2.ForgetContactRequest(tenant=tenant, contact=who)
    with _asking("buffer_service", settings.buffer_address) as channel:
        of_buffer = BufferServiceStub(channel).ForgetContact(request, timeout=_FORGET_S)
    ids = tuple(dict.fromkeys((*of_buffer.conversation_ids, *conversation_ids)))
    try:
        with _asking("context_service", settings.context_address) as channel:
            of_context = ContextServiceStub(channel).ForgetContact(
                context_service_pb2.ForgetContactRequest(
                    tenant=tenant, contact=who, conversation_ids=ids, do_not_contact=do_not_contact
                ),
                timeout=_FORGET_S,
            )
    except PersonError as error:
        raise HalfErased(str(error), ids) from None
    return Erased(
        buffer_conversations=len(of_buffer.conversation_ids),
        buffer_messages=of_buffer.messages,
        leads=of_context.leads,
        conversations=of_context.conversations,
        messages=of_context.messages,
    )


def export(
    settings: SystemSettings,
    who: str,
    write: Callable[[bytes], object],
    *,
    tenant: str = "",
    conversation_ids: tuple[str, ...] = (),
) -> None:
    """Hand over everything that `forget` would erase as one JSON document, a piece at a time: the sections of the
    context, and before them the buffer's in `buffer` (null: it knows nothing).
    Raises PersonError; then what was written is no document."""
    ids, known = list(conversation_ids), False
    with suppress(Unknown), _asking("buffer_service", settings.buffer_address) as channel:
        asked = buffer_service_pb2.ExportContactRequest(tenant=tenant, contact=who)
        for part in BufferServiceStub(channel).ExportContact(asked, timeout=_EXPORT_S):
            write(part.chunk if known else b'{"buffer":' + part.chunk)
            ids, known = [*part.conversation_ids, *ids], True
    begun = False
    try:
        with _asking("context_service", settings.context_address) as channel:
            request = context_service_pb2.ExportContactRequest(
                tenant=tenant, contact=who, conversation_ids=dict.fromkeys(ids)
            )
            for piece in ContextServiceStub(channel).ExportContact(request, timeout=_EXPORT_S):
                # Its document begins with a brace, and goes on in ours.
                write(piece.chunk if begun else (b"," if known else b'{"buffer":null,') + piece.chunk[1:])
                begun = True
    except Unknown:
        if not known:
            raise
        write(b"}\n")


@contextmanager
def _asking(program: str, address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(reachable(address), options=CHANNEL_OPTIONS) as channel:
        try:
            yield channel
        except grpc.RpcError as error:
            failure = Unknown if parse(error).reason == "NOT_FOUND" else PersonError
            raise failure(_sentence(program, address, error)) from None


def _sentence(program: str, address: str, error: Any) -> str:
    code, failure = error.code(), parse(error)
    if code is grpc.StatusCode.UNAVAILABLE and not failure.reason:
        return f"{program} does not answer at {address}."
    if failure.reason == "NOT_FOUND":
        return failure.message
    return f"{program} could not do it: {failure.message} ({failure.reason or code.name})"
