"""Who somebody is, from the many names that WhatsApp has for one person. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

_MAX_JID = 128
_USER = re.compile(r"([0-9]{1,20})(?:[_.][0-9]{1,3})?(?::[0-9]{1,5})?", re.ASCII)
_PHONE = re.compile(r"[0-9]{7,15}", re.ASCII)
_BSUID = re.compile(r"[A-Za-z]{2}\.[A-Za-z0-9]{1,125}", re.ASCII)
_PUNCTUATION = str.maketrans("", "", "+ -().\u00a0")


class JidKind(Enum):
    """What a jid names."""

    PHONE = "phone"
    LID = "lid"
    GROUP = "group"
    STATUS = "status"
    BROADCAST = "broadcast"
    NEWSLETTER = "newsletter"
    UNKNOWN = "unknown"


_SERVERS = {
    "s.whatsapp.net": JidKind.PHONE,
    "c.us": JidKind.PHONE,
    "hosted": JidKind.PHONE,
    "lid": JidKind.LID,
    "hosted.lid": JidKind.LID,
    "g.us": JidKind.GROUP,
    "broadcast": JidKind.BROADCAST,
    "newsletter": JidKind.NEWSLETTER,
}


@dataclass(frozen=True, kw_only=True)
class Jid:
    """A provider's name for a chat, without its device. `user` is digits for persons."""

    kind: JidKind
    user: str = ""

    @property
    def address(self) -> str:
        """The full form that a person can be written to."""
        return f"{self.user}@{'lid' if self.kind is JidKind.LID else 's.whatsapp.net'}"

    @property
    def is_person(self) -> bool:
        """Whether this names one person, by phone or by LID."""
        return self.kind in (JidKind.PHONE, JidKind.LID)

    def same_as(self, other: "Jid") -> bool:
        """Whether both name the same account; the ninth digit makes no difference."""
        if self.kind is not other.kind or not self.is_person:
            return False
        return alias_of(self) == alias_of(other)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One person: the canonical contact, all canonical aliases, and the form to write to."""

    contact: str
    aliases: tuple[str, ...]
    address: str


def parse_jid(raw: object) -> Jid:
    """Classify a jid; whatever is not one is UNKNOWN."""
    if not isinstance(raw, str) or len(raw) > _MAX_JID:
        return Jid(kind=JidKind.UNKNOWN)
    user, at, server = raw.strip().rpartition("@")
    if not at:
        return Jid(kind=JidKind.UNKNOWN)
    kind = _SERVERS.get(server.lower(), JidKind.UNKNOWN)
    if kind is JidKind.BROADCAST and user.lower() == "status":
        return Jid(kind=JidKind.STATUS)
    if kind in (JidKind.PHONE, JidKind.LID):
        return _person(kind, user)
    return Jid(kind=kind)


def canonical_phone(digits: str) -> str:
    """The form under which phones are compared: a Brazilian mobile gets its ninth digit (13 digits)."""
    if len(digits) == 12 and _is_brazilian_mobile(digits[4:], digits):
        return f"{digits[:4]}9{digits[4:]}"
    return digits


def phone_from_text(raw: str) -> str | None:
    """Canonical digits of a phone as people write it ("+55 (81) 9999-0001"), or None."""
    digits = raw.strip().translate(_PUNCTUATION)
    return canonical_phone(digits) if _PHONE.fullmatch(digits) else None


def other_ninth_digit_form(address: str) -> str | None:
    """The same Brazilian mobile with, or without, its ninth digit; None for everybody else."""
    jid = parse_jid(address)
    digits = jid.user
    if jid.kind is not JidKind.PHONE:
        return None
    if len(digits) == 13 and digits[4] == "9" and _is_brazilian_mobile(digits[5:], digits):
        return Jid(kind=JidKind.PHONE, user=digits[:4] + digits[5:]).address
    with_nine = canonical_phone(digits)
    return Jid(kind=JidKind.PHONE, user=with_nine).address if with_nine != digits else None


def alias_of(jid: Jid) -> str:
    """`phone:…` or `lid:…`."""
    return f"lid:{jid.user}" if jid.kind is JidKind.LID else f"phone:{canonical_phone(jid.user)}"


def identify(jids: Sequence[Jid], *, bsuid: str = "") -> Identity | None:
    """The person whom these jids name, in order of trust: the first phone and the first LID count.

    None if none of them names a person.
    """
    phone = next((jid for jid in jids if jid.kind is JidKind.PHONE), None)
    lid = next((jid for jid in jids if jid.kind is JidKind.LID), None)
    aliases = [alias_of(jid) for jid in (phone, lid) if jid is not None]
    if _BSUID.fullmatch(bsuid):
        aliases.append(f"bsuid:{bsuid}")
    if not aliases:
        return None
    first = next((jid for jid in jids if jid.is_person), None)
    return Identity(
        contact=aliases[0].removeprefix("phone:"),
        aliases=tuple(aliases),
        address=first.address if first is not None else bsuid,
    )


def _person(kind: JidKind, raw_user: str) -> Jid:
    match = _USER.fullmatch(raw_user)
    if match is None or (kind is JidKind.PHONE and not _PHONE.fullmatch(match[1])):
        return Jid(kind=JidKind.UNKNOWN)
    return Jid(kind=kind, user=match[1])


def _is_brazilian_mobile(local: str, digits: str) -> bool:
    # Area codes have no zero; eight-digit numbers that begin with 2 to 5 are landlines.
    return digits[:2] == "55" and "0" not in digits[2:4] and len(local) == 8 and local[0] in "6789"
