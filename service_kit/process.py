"""The life of a process: open, serve until a signal, drain, close, and an exit code that says what happened."""

import asyncio
import faulthandler
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, Protocol

import structlog
import uvloop

from service_kit import logs
from service_kit.settings import ConfigurationError
from service_kit.watchdog import LoopWatchdog

EXIT_FAILED = 1
EXIT_NOT_STARTED = 3
EXIT_SECOND_SIGNAL = 130
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_CLOSE_S = 5.0
_log = logs.get(__name__)


class Application(Protocol):
    """A process that can be opened, runs until told to stop, and then drains and closes."""

    async def open(self) -> None:
        """Get everything ready; whatever this raises ends the process with exit code 3."""
        ...

    async def serve_until(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; whatever this raises ends the process, with exit code 1 or, for a
        ConfigurationError, as a failed start does."""
        ...

    async def drain(self) -> None:
        """Finish what is under way, within a bounded time."""
        ...

    async def close(self) -> None:
        """Release what `open` took, in reverse."""
        ...


def run_app(app_factory: Callable[[], Application], *, service: str, watchdog: LoopWatchdog | None = None) -> NoReturn:
    """Run the application as this process. The watchdog, if given, is started after `open`."""
    faulthandler.enable()
    if not structlog.is_configured():
        logs.configure(service=service)
    with starting(service), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_live(app_factory, service, watchdog or LoopWatchdog()))
    # Everything is closed. The interpreter's own end would take a tenth of a second more, and has nothing left to do.
    with suppress(OSError, ValueError, AttributeError):  # Whoever read our output may be gone.
        sys.stdout.flush()
    os._exit(code)


@contextmanager
def starting(service: str) -> Iterator[None]:
    """Turn a failure to start into one sentence on standard error and exit code 3; wrap `load` in it."""
    try:
        yield
    except Exception as error:
        _report_failed_start(service, error)
        sys.exit(EXIT_NOT_STARTED)


async def _live(app_factory: Callable[[], Application], service: str, watchdog: LoopWatchdog) -> int:
    stop = asyncio.Event()
    _install_signals(stop)
    app = app_factory()
    if not await _open(app, stop):
        _log.info("process_stopped", during="start")
        sys.exit(0)  # The interpreter tidies up what was half opened.
    watchdog.start()
    code = 0
    try:
        await app.serve_until(stop)
    except ConfigurationError as error:
        # Found out late, by a side task: whoever started it reads the same sentence.
        _report_failed_start(service, error)
        code = EXIT_NOT_STARTED
    except Exception:
        _log.critical("process_failed", exc_info=True)
        code = EXIT_FAILED
    code = max(code, await _step("drain", app.drain()))
    await watchdog.stop()
    code = max(code, await _step("close", asyncio.wait_for(app.close(), _CLOSE_S)))
    _log.info("process_stopped", exit_code=code)
    return code


async def _open(app: Application, stop: asyncio.Event) -> bool:
    """Open, unless a signal comes first: then the half-opened application is abandoned."""
    opening = asyncio.create_task(app.open(), name="open")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
            return True
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await opening
        return False
    finally:
        stopping.cancel()


async def _step(name: str, work: Awaitable[None]) -> int:
    try:
        await work
    except Exception:
        _log.error("stop_step_failed", step=name, exc_info=True)
        return EXIT_FAILED
    return 0


def _install_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    received = False

    def on_signal(number: int, _frame: object) -> None:
        nonlocal received
        if received:
            os._exit(EXIT_SECOND_SIGNAL)
        received = True
        loop.call_soon_threadsafe(request_stop, signal.Signals(number).name)

    def request_stop(name: str) -> None:
        _log.info("stop_requested", signal=name)
        stop.set()

    # Plain handlers, not the loop's: the second signal must work although the loop may be stuck.
    for number in _SIGNALS:
        signal.signal(number, on_signal)


def _report_failed_start(service: str, error: Exception) -> None:
    if isinstance(error, ConfigurationError):
        sentence = f"{service} could not start: {error}"
    else:
        sentence = f"{service} could not start: {type(error).__name__}: {logs.redact_text(str(error))}"
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(sentence + "\n")
        sys.stderr.flush()
    known = isinstance(error, ConfigurationError)
    _log.error("start_failed", reason=str(error), exc_info=None if known else error)
