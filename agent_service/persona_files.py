"""The files of a persona: found, read, put together. Whoever reads an error learns the file, the line and the key."""

import hashlib
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from agent_service.persona_mistakes import of_yaml
from service_kit.settings import ConfigurationError

SUFFIX = ".yaml"
VERSION_DIGITS = 12
# Where `make persona` puts them: beside the code and not in it, and git doesn't look at it.
OWN_FOLDER = Path("personas")
# A persona is a few pages; what is much larger is some other file.
MAX_BYTES = 1 << 20
# With every `*name` written out. The demos have about a thousand; ten lines can unfold to millions of millions.
MAX_NODES = 100_000


@dataclass(frozen=True, kw_only=True)
class PersonaFiles:
    """One state of the files, by name. Two reads that give the same version gave the same bytes."""

    path: Path
    contents: tuple[tuple[str, bytes], ...]

    @property
    def version(self) -> str:
        """The first 12 hex digits of the SHA-256 over names and bytes, sorted by name."""
        digest = hashlib.sha256()
        for name, content in sorted(self.contents):
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()[:VERSION_DIGITS]

    def documents(self) -> "Documents":
        """Everything parsed and put together; raises `ConfigurationError` with what is wrong in any of the files."""
        found = Documents(path=self.path)
        for name, content in sorted(self.contents):
            found.add(self.path / name if self.path.is_dir() else self.path, content)
        if found.problems:
            raise ConfigurationError("; ".join(found.problems))
        return found


@dataclass(kw_only=True)
class Documents:
    """The keys of all files as one mapping, each remembered with its place."""

    path: Path
    data: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _places: dict[str, tuple[Path, yaml.Node]] = field(default_factory=dict)

    def add(self, file: Path, content: bytes) -> None:
        """Parse one file; what is wrong with it is kept in `problems`."""
        try:
            loader = yaml.SafeLoader(content.decode("utf-8-sig"))
            node = loader.get_single_node()
            if node is not None and _unfolded(node, {}) > MAX_NODES:
                raise ValueError(f"holds more than {MAX_NODES} values, its *aliases written out")
            data = loader.construct_document(node) if node is not None else None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self.problems.append(f"{file}{_line(getattr(error, 'problem_mark', None))}: cannot be read: {_said(error)}")
            return
        if not isinstance(data, dict) or not isinstance(node, yaml.MappingNode):
            self.problems.append(f"{file}: must be a mapping of keys")
            return
        self.problems += [f"{file}{_line(mark)}: {key}: stands there twice" for key, mark in _twice(node)]
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in self._places and self._places[key][0] != file:
                self.problems.append(f"{file}{_line(key_node.start_mark)}: {key}: is in {self._places[key][0]} already")
            self._places[key] = (file, value_node)
        self.data.update(data)

    def where(self, loc: Sequence[str | int]) -> str:
        """The file and line of a key, as far down as it exists."""
        if not loc or str(loc[0]) not in self._places:
            return str(self.path)
        file, node = self._places[str(loc[0])]
        for part in loc[1:]:
            below = _below(node, part)
            if below is None:
                break
            node = below
        return f"{file}{_line(node.start_mark)}"


def find(name_or_path: str) -> Path:
    """The file or folder that a setting names: a packaged persona, or a path."""
    if re.fullmatch(r"[\w-]+", name_or_path) and name_or_path in packaged():
        folder = _packaged_folder() / name_or_path
        return folder if folder.is_dir() else folder.with_suffix(SUFFIX)
    path = Path(name_or_path)
    if path.is_file() or path.is_dir():
        return path
    own = OWN_FOLDER / name_or_path
    hint = f", but there is {own}" if own.exists() else ""
    raise ConfigurationError(
        f"there is no persona {name_or_path}{hint}: it is {' or '.join(packaged())}, or the path of a folder or file"
    )


def read(path: Path) -> PersonaFiles:
    """The bytes of the file, or of every .yaml file in the folder (not of hidden ones, which editors leave behind)."""
    folder = path if path.is_dir() else path.parent
    try:
        names = [path.name] if folder != path else sorted(_names(path))
        if folder == path and (other := sorted(path.glob("[!.]*.yml"))):
            raise ConfigurationError(f"{other[0]}: is not read under this name, call it {other[0].stem}{SUFFIX}")
        contents = tuple((name, _bytes(folder / name)) for name in names)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or path}: cannot be read: {error.strerror}") from None
    if not contents:
        raise ConfigurationError(f"{path}: holds no {SUFFIX} file")
    return PersonaFiles(path=path, contents=contents)


def packaged() -> list[str]:
    """Names of the personas that ship with the package."""
    names = (each.name.removesuffix(SUFFIX) for each in _packaged_folder().iterdir() if _is_persona(each))
    return sorted(names)


def _packaged_folder() -> Path:
    return Path(str(resources.files("agent_service") / "personas"))


def _is_persona(path: Path) -> bool:
    return path.suffix == SUFFIX or (path.is_dir() and any(path.glob(f"*{SUFFIX}")))


def _names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir() if each.suffix == SUFFIX and each.name[0] not in ".#~"]


def _bytes(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        # Reading a pipe or a device may never end.
        raise ConfigurationError(f"{path}: is no ordinary file")
    if status.st_size > MAX_BYTES:
        raise ConfigurationError(f"{path}: is too large for a persona ({MAX_BYTES} bytes at most)")
    return path.read_bytes()


def _line(mark: yaml.Mark | None) -> str:
    return "" if mark is None else f", line {mark.line + 1}"


def _said(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8 text"
    return of_yaml(str(getattr(error, "problem", None) or str(error).partition("\n")[0]))


def _unfolded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are when every alias is written out; one that holds itself counts once."""
    if id(node) not in known:
        known[id(node)] = 0
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        below = [each for pair in pairs for each in pair] or (node.value if isinstance(node, yaml.SequenceNode) else [])
        known[id(node)] = 1 + sum(_unfolded(each, known) for each in below)
    return known[id(node)]


def _twice(node: yaml.Node) -> list[tuple[str, yaml.Mark]]:
    """Keys that stand twice in one mapping; YAML itself would silently take the last."""
    found: list[tuple[str, yaml.Mark]] = []
    pending, seen = [node], set[int]()
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, yaml.MappingNode):
            keys = [str(key.value) for key, _ in each.value]
            found += [(key, each.value[at][0].start_mark) for at, key in enumerate(keys) if key in keys[:at]]
            pending += [value for _, value in each.value]
        elif isinstance(each, yaml.SequenceNode):
            pending += each.value
    return found


def _below(node: yaml.Node, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode):
        items: list[yaml.Node] = node.value
        if isinstance(part, int):
            return items[part] if part < len(items) else None
        return next((each for each in items if _id(each) == part), None)
    return None


def _id(node: yaml.Node) -> str:
    below = _below(node, "id") if isinstance(node, yaml.MappingNode) else None
    return str(below.value) if below is not None else ""
