"""What was looked up, kept for the next turn. Pure: instants are arguments, and nothing here waits.

Three rules keep it from ever telling what was true before the last recorded turn:

1. An entry carries the conversation's version, and a reader says which version it must not be older than.
2. What was asked of the store before a write of the same conversation or lead ended is not kept (`Ticket`).
3. An entry goes `ttl_s` after its lookup, because others may change the database too, and when the day changes. A
   turn that is written through does not keep it longer: the lines before it were not read again.
"""

from collections import OrderedDict, defaultdict
from dataclasses import dataclass

from context_service.domain import After, ContextQuery, Conversation, HistoryMessage, Lead, UsageToday

_ROW_BYTES = 400


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Lead, conversation and the latest messages, as the store had them at one version (0: nothing is recorded)."""

    lead: Lead | None
    conversation: Conversation | None
    history: tuple[HistoryMessage, ...]
    usage: UsageToday
    version: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Ticket:
    """Something that the store was asked, when, and how many writes had ended by then."""

    began_s: float
    day: str
    writes: int


@dataclass(frozen=True, kw_only=True)
class _Entry:
    snapshot: Snapshot
    query: ContextQuery
    until_s: float
    day: str
    size: int


class ContextCache:
    """Bounded by entries and bytes; the least recently used goes first. Instants are monotonic seconds."""

    def __init__(self, *, max_entries: int, max_bytes: int, ttl_s: float) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._shown_by: defaultdict[str, set[str]] = defaultdict(set)
        self._tickets: OrderedDict[Ticket, None] = OrderedDict()
        self._writes = 0
        self._cleared = 0
        self._written: OrderedDict[str, int] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, query: ContextQuery, *, min_version: int, now_s: float, day: str) -> Snapshot | None:
        """The snapshot, if it is known for just this question, new enough and not too old."""
        entry = self._entries.get(query.conversation_id)
        if entry is None or not _answers(entry, query):
            return None
        if now_s >= entry.until_s or day != entry.day:
            self._remove(query.conversation_id)
            return None
        if entry.snapshot.version < min_version:
            return None
        self._entries.move_to_end(query.conversation_id)
        return entry.snapshot

    # ---- what the store answers

    def begin(self, *, now_s: float, day: str) -> Ticket:
        """The store is asked; the ticket has to come back to `keep`, `recorded` or `give_up`."""
        ticket = Ticket(began_s=now_s, day=day, writes=self._writes)
        self._tickets[ticket] = None
        return ticket

    def keep(self, ticket: Ticket, query: ContextQuery, snapshot: Snapshot) -> None:
        """What a lookup found, unless it was written meanwhile."""
        known = self._entries.get(query.conversation_id)
        fresh = self._is_fresh(ticket, query.conversation_id, _shown(query, snapshot.lead))
        self.give_up(ticket)
        if fresh and (known is None or known.snapshot.version <= snapshot.version):
            self._put(query, snapshot, until_s=ticket.began_s + self._ttl_s, day=ticket.day)

    def give_up(self, ticket: Ticket) -> None:
        """The store did not answer, or what it said was kept."""
        del self._tickets[ticket]
        oldest = next(iter(self._tickets)).writes if self._tickets else self._writes
        while self._written and next(iter(self._written.values())) <= oldest:
            self._written.popitem(last=False)

    def recorded(self, ticket: Ticket, conversation_id: str, after: After | None) -> None:
        """A turn was recorded. Without knowing what it left behind, or out of order, the entry goes."""
        known = self._entries.get(conversation_id)
        fresh = after is not None and self._is_fresh(ticket, conversation_id, (f"lead:{after.lead.lead_id}",))
        self.give_up(ticket)
        self.drop(conversation_id)
        if after is None:
            return
        self.drop_lead(after.lead.lead_id)
        if known is None or not fresh or ticket.day != known.day or not _follows(known.snapshot, after):
            return
        if ticket.began_s >= known.until_s:
            return
        snapshot = Snapshot(
            lead=after.lead,
            conversation=after.conversation,
            history=(*known.snapshot.history, *after.messages)[-known.query.history_limit :],
            usage=after.usage,
            version=after.conversation.version,
        )
        # The lines before the turn were not read again.
        self._put(known.query, snapshot, until_s=known.until_s, day=known.day)

    # ---- writes

    def drop(self, *conversation_ids: str) -> None:
        """Something of these conversations was written, or may have been."""
        for conversation_id in conversation_ids:
            self._note_write(f"conversation:{conversation_id}")
            self._remove(conversation_id)

    def drop_lead(self, lead_id: str) -> None:
        """A lead was written: every conversation that shows it."""
        self._drop_shown(f"lead:{lead_id}")

    def drop_strangers(self, names: tuple[str, ...]) -> None:
        """Somebody with these names is known now: every conversation that said that nobody is."""
        for name in names:
            self._drop_shown(f"name:{name}")

    def clear(self) -> None:
        """Anything may have been written."""
        self._writes += 1
        self._cleared = self._writes
        for conversation_id in tuple(self._entries):
            self._remove(conversation_id)

    def _drop_shown(self, whom: str) -> None:
        self._note_write(whom)
        for conversation_id in tuple(self._shown_by.get(whom, ())):
            self._remove(conversation_id)

    def _note_write(self, what: str) -> None:
        self._writes += 1
        if self._tickets:
            self._written[what] = self._writes
            self._written.move_to_end(what)

    def _is_fresh(self, ticket: Ticket, conversation_id: str, shown: tuple[str, ...]) -> bool:
        names = (f"conversation:{conversation_id}", *shown)
        return self._cleared <= ticket.writes and all(self._written.get(name, 0) <= ticket.writes for name in names)

    def _put(self, query: ContextQuery, snapshot: Snapshot, *, until_s: float, day: str) -> None:
        self._remove(query.conversation_id)
        size = _size(snapshot)
        entry = _Entry(snapshot=snapshot, query=query, until_s=until_s, day=day, size=size)
        self._entries[query.conversation_id] = entry
        self.bytes += size
        for whom in _shown(query, snapshot.lead):
            self._shown_by[whom].add(query.conversation_id)
        while self._entries and (len(self._entries) > self._max_entries or self.bytes > self._max_bytes):
            self._remove(next(iter(self._entries)))

    def _remove(self, conversation_id: str) -> None:
        entry = self._entries.pop(conversation_id, None)
        if entry is None:
            return
        self.bytes -= entry.size
        for whom in _shown(entry.query, entry.snapshot.lead):
            conversations = self._shown_by[whom]
            conversations.discard(conversation_id)
            if not conversations:
                del self._shown_by[whom]


def _shown(query: ContextQuery, lead: Lead | None) -> tuple[str, ...]:
    """Whom an entry is about: its lead, or all the names under which nobody is known."""
    return (f"lead:{lead.lead_id}",) if lead else tuple(f"name:{one}" for one in query.contact.all_aliases)


def _answers(entry: _Entry, query: ContextQuery) -> bool:
    """Whether a lookup would have been the same. The person's names matter only until there is a conversation."""
    kept = entry.query
    same = (kept.scope.tenant, kept.history_limit) == (query.scope.tenant, query.history_limit)
    return same and (entry.snapshot.version > 0 or kept.contact.all_aliases == query.contact.all_aliases)


def _follows(known: Snapshot, after: After) -> bool:
    """Nothing but this turn was recorded since: no other turn, and no lines of a conversation that was merged in."""
    lines = known.conversation.total_messages if known.conversation else 0
    return (known.version + 1, lines + len(after.messages)) == (
        after.conversation.version,
        after.conversation.total_messages,
    )


def _size(snapshot: Snapshot) -> int:
    """Bytes in memory, roughly."""
    texts = sum(len(line.text.encode()) + _ROW_BYTES * (1 + len(line.media)) for line in snapshot.history)
    summary = len(snapshot.conversation.summary.encode()) if snapshot.conversation else 0
    facts = sum(len(key) + len(value) for key, value in snapshot.lead.preferences.items()) if snapshot.lead else 0
    return 4 * _ROW_BYTES + texts + summary + facts
