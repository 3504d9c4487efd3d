"""Leads who write in bursts through a provider that repeats, reorders and floods. Every attempt is in the history."""

from __future__ import annotations

import asyncio
import itertools
import random
import string
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.system.harness import TOKEN, webhook

LINES = [
    "oi, tudo bem?", "minha conta vem uns 600 reais", "quero saber como funciona", "quanto tempo demora?",
    "tem garantia?", "qual a economia?", "vocês financiam?", "moro em Olinda", "e a manutenção?", "não tenho pressa",
]  # fmt: skip
NOISE = ("contacts.update", "chats.update", "messages.update", "presence.update", "chats.upsert")
MESSAGES_EACH = 8
_contacts = itertools.count(1)


@dataclass(kw_only=True)
class Message:
    """One message and its way in. Instants are monotonic seconds; `acked` 0 while no 200 came."""

    message_id: str
    first_try: float = 0.0
    acked: float = 0.0


@dataclass(kw_only=True)
class Person:
    """Somebody who writes a few thoughts. The canary is their name and nobody else's."""

    contact: str
    canary: str
    messages: list[Message] = field(default_factory=list)


def new_person(dice: random.Random) -> Person:
    """An invented mobile number and a name that nobody has."""
    canary = "Z" + "".join(dice.choices(string.ascii_lowercase, k=7))
    return Person(contact=f"55819{80_000_000 + next(_contacts)}", canary=canary)


@dataclass(kw_only=True)
class Load:
    """Writes until stopped. `urls` are the ingresses; a webhook that isn't accepted goes to the next one."""

    http: aiohttp.ClientSession
    urls: Sequence[str]
    dice: random.Random
    people: list[Person] = field(default_factory=list)
    duplicates: int = 0
    refused: int = 0
    noise: int = 0

    def __post_init__(self) -> None:
        self._turn = itertools.count()
        self._stop = asyncio.Event()
        self._later: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """No new messages; what was begun is delivered."""
        self._stop.set()

    async def run(self, writers: int) -> None:
        """So many people at a time."""
        noise = asyncio.create_task(self._noise(), name="noise")
        await asyncio.gather(*(self._writer() for _ in range(writers)))
        await asyncio.gather(*self._later)
        noise.cancel()
        await asyncio.gather(noise, return_exceptions=True)

    async def flood(self, messages: int) -> None:
        """Many new people at once."""
        people = [new_person(self.dice) for _ in range(messages)]
        self.people += people
        await asyncio.gather(*(self._say(person, "oi, quanto custa?") for person in people))

    async def _writer(self) -> None:
        while not self._stop.is_set():
            person = new_person(self.dice)
            self.people.append(person)
            lines = [f"me chamo {person.canary}", *self.dice.choices(LINES, k=MESSAGES_EACH - 1)]
            while lines and not self._stop.is_set():
                for line in [lines.pop() for _ in range(min(len(lines), self.dice.randint(1, 4)))]:
                    await self._say(person, line)
                    await asyncio.sleep(self.dice.uniform(0.05, 0.6))
                await asyncio.sleep(self.dice.uniform(0.3, 3.0))

    async def _say(self, person: Person, line: str) -> None:
        message = Message(message_id=uuid.uuid4().hex.upper())
        person.messages.append(message)
        body = webhook(person.contact, line, message_id=message.message_id)
        if self.dice.random() < 0.1 and len(person.messages) > 1:
            # Out of order: the next ones overtake it.
            self._spawn(self._deliver(message, body, after=self.dice.uniform(0.2, 1.5)))
        else:
            await self._deliver(message, body)
        if self.dice.random() < 0.3:
            self.duplicates += 1
            self._spawn(self._repeat(message, body, self.dice.choice([0.0, 0.1, 1.0, 5.0])))

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _deliver(self, message: Message, body: dict[str, Any], *, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        message.first_try = message.first_try or time.monotonic()
        while await self._post(body) != 200:
            self.refused += 1
            await asyncio.sleep(0.2)
        message.acked = message.acked or time.monotonic()

    async def _repeat(self, message: Message, body: dict[str, Any], after: float) -> None:
        await asyncio.sleep(after)
        # It may be the first to arrive.
        message.first_try = message.first_try or time.monotonic()
        if await self._post(body) == 200:
            message.acked = message.acked or time.monotonic()

    async def _post(self, body: dict[str, Any]) -> int:
        url = self.urls[next(self._turn) % len(self.urls)]
        try:
            async with self.http.post(url, json=body, headers={"Authorization": f"Bearer {TOKEN}"}) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0

    async def _noise(self) -> None:
        while True:
            await asyncio.sleep(0.03)
            event = self.dice.choice(NOISE)
            data = {"remoteJid": f"55819{self.dice.randrange(10**7, 10**8)}@s.whatsapp.net", "status": "READ"}
            self.noise += 1
            await self._post({"event": event, "instance": "loja-demo", "data": data})
