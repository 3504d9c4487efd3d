"""`python -m ingress.chat`: a terminal chat with the running system. Needs no provider."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
from typing import Any

import aiohttp

from ingress.settings import AdminSettings
from service_kit.settings import ConfigurationError, load

RECONNECT_S = 1.0


def say(line: str) -> None:
    """Prints a line."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def explain(turn: dict[str, Any]) -> str:
    """How many messages an answer answered, and where the time went."""
    segments = " · ".join(f"{name} {ms:g} ms" for name, ms in turn["segments_ms"].items() if ms >= 0.05)
    count = turn["messages"]
    noun = "message" if count == 1 else "messages"
    notes = " · without context" if turn["degraded"] else ""
    return f"   ↳ answered {count} {noun} in {turn['total_ms'] / 1000:.2f} s: {segments}{notes}"


class Chat:
    """One conversation on the console channel."""

    def __init__(self, session: aiohttp.ClientSession, base: str, contact: str) -> None:
        self._session = session
        self._base = base
        self._contact = contact
        self._last_event = ""

    async def listen(self) -> None:
        """Prints what the agent says, over reconnects."""
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                await self._listen_once()
            await asyncio.sleep(RECONNECT_S)

    async def _listen_once(self) -> None:
        headers = {"Last-Event-ID": self._last_event} if self._last_event else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
        url = f"{self._base}/console/{self._contact}/events"
        async with self._session.get(url, headers=headers, timeout=timeout) as response:
            response.raise_for_status()
            fields: dict[str, str] = {}
            async for raw in response.content:
                line = raw.decode().rstrip("\n")
                name, _, value = line.partition(": ")
                if line:
                    fields[name] = value
                elif fields:
                    self._show(fields)
                    fields = {}

    def _show(self, fields: dict[str, str]) -> None:
        self._last_event = fields.get("id", self._last_event)
        kind = fields.get("event")
        if kind == "part":
            say(f"🤖 {json.loads(fields['data'])['text']}")
        elif kind == "typing":
            say("   … typing")
        elif kind == "turn":
            say(explain(json.loads(fields["data"])))

    async def send(self, text: str) -> None:
        """Sends one message."""
        try:
            async with self._session.post(
                f"{self._base}/console/messages", json={"contact": self._contact, "text": text}
            ) as response:
                body = await response.json()
                if response.status != 202:
                    say(f"   not sent: {body.get('error')}")
                elif body["outcome"] == "recorded_only":
                    say("   recorded; a human answers this conversation (ResumeConversation gives it back)")
        except aiohttp.ClientError:
            say("   not sent: nobody answers; is the system up? (make status)")


async def _is_up(session: aiohttp.ClientSession, base: str) -> bool:
    try:
        async with session.get(f"{base}/readyz", timeout=aiohttp.ClientTimeout(total=5)) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def chat(settings: AdminSettings, contact: str) -> int:
    """Until end of input."""
    token = settings.admin_token.get_secret_value()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession(headers=headers) as session:
        base = f"http://{settings.admin_address}"
        if not await _is_up(session, base):
            sys.stderr.write(f"Nothing is ready at {base}: make up, make status\n")
            return 1
        talk = Chat(session, base, contact)
        say(f"Chatting as {contact}. Write as a lead would; several lines in a row are a burst. Ctrl-D ends.")
        listening = asyncio.create_task(talk.listen(), name="chat-listen")
        try:
            while line := await asyncio.to_thread(sys.stdin.readline):
                if line.strip():
                    await talk.send(line.strip())
            await asyncio.sleep(0 if sys.stdin.isatty() else 3)
        finally:
            listening.cancel()
    return 0


def main() -> int:
    """Reads settings and chats."""
    parser = argparse.ArgumentParser(description=__doc__)
    invented = f"55819{random.randint(10_000_000, 99_999_999)}"
    parser.add_argument(
        "contact", nargs="?", default=invented, help="whom to be, 8 to 15 digits; default: somebody new"
    )
    contact = parser.parse_args().contact
    try:
        settings = load(AdminSettings)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(chat(settings, contact))
    return 0


if __name__ == "__main__":
    sys.exit(main())
