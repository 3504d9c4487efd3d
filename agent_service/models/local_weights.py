"""What a GGUF file says of itself, read before llama.cpp sees it: a wrong file is a sentence, not a line on stderr.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Only the head is read; the weights come after it.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from service_kit.settings import ConfigurationError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
# Bytes of the fixed-size value types, by their number.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_MOST_ENTRIES = 65_536
_LONGEST_STRING = 16 << 20
_MEMINFO = Path("/proc/meminfo")
# What else a machine needs while a model runs on it.
_SPARE_BYTES = 128 << 20


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A file of weights. `has_chat_template` is False for base models, which only continue text."""

    path: Path
    name: str
    bytes: int
    has_chat_template: bool


def read_weights(path: Path) -> Weights:
    """The file's own words about it. Errors: ConfigurationError, a sentence for who set SDR_AGENT_MODEL."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            strings = _Head(file).strings(wanted=("general.name", "tokenizer.chat_template"))
    except IsADirectoryError:
        raise ConfigurationError(f"SDR_AGENT_MODEL: {path} is a directory; name the GGUF file in it") from None
    except FileNotFoundError:
        raise ConfigurationError(f"SDR_AGENT_MODEL: there is no file {path.absolute()}") from None
    except OSError as error:
        raise ConfigurationError(f"SDR_AGENT_MODEL: {path} cannot be read: {error.strerror or error}") from None
    except (ValueError, struct.error):
        raise ConfigurationError(f"SDR_AGENT_MODEL: {path} is not a GGUF file, or not a whole one") from None
    return Weights(
        path=path,
        name=strings.get("general.name", "").strip() or path.stem,
        bytes=size,
        has_chat_template=bool(strings.get("tokenizer.chat_template", "").strip()),
    )


def require_memory(weights: Weights, available: int | None) -> None:
    """Refuse weights that cannot fit into what is free; None is "nobody knows". Errors: ConfigurationError."""
    needed = weights.bytes + _SPARE_BYTES
    if available is not None and needed > available:
        raise ConfigurationError(
            f"SDR_AGENT_MODEL: {weights.path.name} needs at least {_gib(needed)} of memory and {_gib(available)} are "
            "free; choose a smaller model or a smaller quantisation of it"
        )


def free_memory(meminfo: Path = _MEMINFO) -> int | None:
    """Bytes that the machine can still give; None where it doesn't tell (macOS)."""
    try:
        rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


class _Head:
    """Reads entry after entry; raises ValueError or struct.error where the file is no GGUF."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def strings(self, *, wanted: tuple[str, ...]) -> dict[str, str]:
        """The wanted text entries that are there."""
        if self._file.read(4) != _MAGIC or self._number("<I") not in _VERSIONS:
            raise ValueError("no GGUF")
        self._number("<Q")  # how many tensors
        entries = self._number("<Q")
        if entries > _MOST_ENTRIES:
            raise ValueError("too many entries")
        found: dict[str, str] = {}
        for _ in range(entries):
            key, kind = self._string(), self._number("<I")
            if kind == _STRING and key in wanted:
                found[key] = self._string()
                if len(found) == len(wanted):
                    break
            else:
                self._skip(kind)
        return found

    def _skip(self, kind: int) -> None:
        if kind == _STRING:
            self._forward(self._number("<Q"))
        elif kind == _ARRAY:
            each, count = self._number("<I"), self._number("<Q")
            if each in _SIZES:
                self._forward(_SIZES[each] * count)
            else:
                for _ in range(count):
                    self._skip(each)
        elif kind in _SIZES:
            self._forward(_SIZES[kind])
        else:
            raise ValueError("no such type")

    def _string(self) -> str:
        length = self._number("<Q")
        if length > _LONGEST_STRING:
            raise ValueError("too long")
        return self._bytes(length).decode("utf-8", "replace")

    def _number(self, layout: str) -> int:
        value: int = struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0]
        return value

    def _forward(self, count: int) -> None:
        self._file.seek(count, 1)

    def _bytes(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise ValueError("the file ends too early")
        return data
