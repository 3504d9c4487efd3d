"""The persona while the agent runs: files that change become the next version, and a broken one changes nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent_service import persona_files
from agent_service.persona import LoadedPersona, read_persona
from agent_service.persona_files import PersonaFiles
from service_kit import logs
from service_kit.clock import Clock
from service_kit.settings import ConfigurationError

LOOK_EVERY_S = 1.0
_log = logs.get(__name__)


class PersonaSource:
    """Hands out immutable snapshots. Who answers takes `current` once at the start of a turn and keeps to it, so that
    no turn mixes two versions."""

    def __init__(self, name_or_path: str, *, clock: Clock, look_every_s: float = LOOK_EVERY_S) -> None:
        self._name_or_path = name_or_path
        self._clock = clock
        self._look_every_s = look_every_s
        self._path: Path | None = None
        self._current: LoadedPersona | None = None
        self._problem = ""
        self._seen = ""
        self._refused = ""

    @property
    def current(self) -> LoadedPersona:
        """The version that is spoken from now; `load` comes first."""
        if self._current is None:
            raise RuntimeError("no persona is loaded yet")
        return self._current

    @property
    def problem(self) -> str:
        """Why the files as they are now are not spoken from; empty while they are."""
        return self._problem

    def load(self) -> LoadedPersona:
        """Read and check the files, blocking; the start of a process. Errors: `ConfigurationError`."""
        self._path = self._find().absolute()
        self._current = read_persona(persona_files.read(self._path))
        self._problem = self._refused = ""
        return self._current

    async def poll(self, prepare: Callable[[LoadedPersona], Awaitable[None]] | None = None) -> bool:
        """Look at the files once; whether another version is current now.

        Editors write a file in several steps and people save several files, so a change counts when two looks in a row
        found the same. `prepare` is awaited with the new version before it becomes current; if it raises
        `ConfigurationError`, the version is refused.
        """
        try:
            files = await asyncio.to_thread(self._read)
        except ConfigurationError as error:
            self._refuse_when_stable(str(error))
            return False
        if files.version == self.current.version:
            self._settle()
            return False
        if not self._stood_still(files.version) or files.version == self._refused:
            return False
        return await self._take(files, prepare)

    async def watch(self, prepare: Callable[[LoadedPersona], Awaitable[None]] | None = None) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self._clock.sleep(self._look_every_s)
            await self.poll(prepare)

    def _find(self) -> Path:
        try:
            return persona_files.find(self._name_or_path)
        except ConfigurationError as error:
            raise ConfigurationError(f"SDR_PERSONA: {error}") from None

    def _read(self) -> PersonaFiles:
        if self._path is None:
            raise RuntimeError("no persona is loaded yet")
        return persona_files.read(self._path)

    async def _take(self, files: PersonaFiles, prepare: Callable[[LoadedPersona], Awaitable[None]] | None) -> bool:
        before = self.current
        try:
            loaded = await asyncio.to_thread(read_persona, files)
            if prepare is not None:
                await prepare(loaded)
        except ConfigurationError as error:
            self._refuse(version=files.version, problem=str(error))
            return False
        self._current = loaded
        self._problem = self._refused = self._seen = ""
        _log.info(
            "persona_reloaded", persona=loaded.persona.name, version=loaded.version, previous_version=before.version
        )
        return True

    def _stood_still(self, seen: str) -> bool:
        stable, self._seen = seen == self._seen, seen
        return stable

    def _refuse_when_stable(self, problem: str) -> None:
        if self._stood_still(problem) and self._refused != problem:
            self._refuse(version=problem, problem=problem)

    def _refuse(self, *, version: str, problem: str) -> None:
        self._refused, self._problem = version, problem
        _log.error("persona_refused", problem=problem, kept_version=self.current.version)

    def _settle(self) -> None:
        """The files are what is spoken from: whatever was wrong in between is over."""
        if self._problem:
            _log.info("persona_restored", version=self.current.version)
        self._problem = self._refused = self._seen = ""
