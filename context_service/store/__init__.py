"""What a store of leads, conversations and history can do.

Every verb is one atomic step. Besides the errors that it names, each may raise `Unavailable`: the store could not do it
now, nothing happened, try again. A store never reads a failure as "not there".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from context_service.domain import (
    ContextQuery,
    Conversation,
    Erased,
    HistoryMessage,
    Lead,
    LeadPatch,
    Recorded,
    Summary,
    Swept,
    TurnRecord,
    UsageToday,
)
from service_kit.backups import Backups, Copied

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Seen(Generic[T]):
    """A value and the conversation's version at that instant (0: the conversation is unknown)."""

    version: int
    value: T


@dataclass(frozen=True, kw_only=True)
class PageAfter:
    """At most `size` rows after the key of the last one; keys are what the row before said, never an offset."""

    size: int
    after: tuple[int, str] | None = None


@dataclass(frozen=True, kw_only=True)
class LeadFilter:
    """Which leads; empty or None means any."""

    tenant: str
    stage: str = ""
    qualification_status: str = ""
    updated_since_ms: int | None = None


class ExportSection(StrEnum):
    """The parts of an export, in their order."""

    LEADS = "leads"
    ALIASES = "lead_aliases"
    CONVERSATIONS = "conversations"
    MESSAGES = "messages"
    TURNS = "turns"
    CHANGES = "lead_changes"
    USAGE = "usage_days"
    MERGED = "merged_conversations"


@dataclass(frozen=True, kw_only=True)
class ExportPage:
    """Some rows with the store's own column names, and where to go on (None: that was all)."""

    rows: tuple[Mapping[str, object], ...]
    next_after: int | None


class ContextStore(Protocol):
    """Leads, conversations and history, durably."""

    async def find_lead(self, query: ContextQuery) -> Seen[Lead | None]:
        """The conversation's lead; without a conversation, the oldest lead that has one of the aliases."""
        ...

    async def find_conversation(self, query: ContextQuery) -> Seen[Conversation | None]:
        """The conversation, if this tenant has it."""
        ...

    async def recent_messages(self, query: ContextQuery) -> Seen[tuple[HistoryMessage, ...]]:
        """The latest messages, oldest first."""
        ...

    async def record_turn(self, record: TurnRecord) -> Recorded:
        """Store a turn with everything that it changes; a repeat returns the first answer.

        Conversations that were merged into this one give it their messages, turns and lead first. A turn of one that
        was merged away goes to where it was merged into.

        Errors: Forgotten; InvalidArgument when the turn or the conversation belongs to another tenant.
        """
        ...

    async def usage_today(self, query: ContextQuery) -> UsageToday:
        """What the conversation and its tenant have used today (UTC)."""
        ...

    async def put_summary(self, conversation_id: str, summary: Summary) -> None:
        """Store the summary of older history, and count what it cost.

        Errors: NotFound; WrongState when there is a summary that reaches further, or the conversation never had that
        version or that message.
        """
        ...

    async def get_lead(self, lead_id: str) -> Lead:
        """One lead by id. Errors: NotFound."""
        ...

    async def get_lead_by_alias(self, tenant: str, alias: str) -> Lead:
        """One lead by any of its aliases. Errors: NotFound."""
        ...

    async def list_leads(self, wanted: LeadFilter, page: PageAfter) -> tuple[Lead, ...]:
        """Latest change first; the page key is (updated_ms, lead_id)."""
        ...

    async def update_lead(self, lead_id: str, tenant: str, patch: LeadPatch) -> Lead:
        """Change a lead and say what it is now; an empty tenant means any. Errors: NotFound."""
        ...

    async def list_conversations(self, tenant: str, lead_id: str, page: PageAfter) -> tuple[Conversation, ...]:
        """Latest activity first, of one lead unless empty; the page key is (updated_ms, conversation_id)."""
        ...

    async def list_messages(self, conversation_id: str, page: PageAfter) -> tuple[HistoryMessage, ...]:
        """Oldest first; the page key is (sequence, ""). Errors: NotFound."""
        ...

    async def find_people(self, tenant: str, alias: str, conversation_ids: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The ids of the leads that are this person, by the alias and by conversations, also merged ones: just those
        whom `forget` erases. Empty when there are none."""
        ...

    async def export_rows(self, section: ExportSection, lead_ids: tuple[str, ...], after: int) -> ExportPage:
        """Some rows of these leads, after the place that the page before named (0: from the start)."""
        ...

    async def forget(
        self, tenant: str, alias: str, conversation_ids: tuple[str, ...], *, do_not_contact: bool = False
    ) -> Erased:
        """Erase the person with this alias and those of the conversations, and leave tombstones for the conversations.

        When it returns, nothing of them is left in the store's files but a keyed hash of each alias, if the person is
        never to be contacted or `do_not_contact` says so. A repeat finds nothing and does no harm.
        """
        ...

    async def sweep(self, before_ms: int, *, limit: int) -> Swept:
        """Delete at most `limit` rows of each table that are older than that instant, and then conversations and leads
        of which nothing newer is left. Who is never to be contacted stays so, as keyed hashes. One step of the
        retention sweeper: repeat until it deletes nothing."""
        ...

    async def back_up(self, backups: Backups, name: str) -> Copied:
        """Copy everything that is committed, while others go on.

        Errors: InvalidArgument; WrongState when the name is taken or a copy is being made.
        """
        ...

    async def ping(self) -> None:
        """Return when the store answers."""
        ...

    async def close(self) -> None:
        """Finish what is under way and let go of everything. A second call does nothing."""
        ...
