"""Writes `.env.example` and the list of known settings from the settings models, or checks that they are up to date."""

import argparse
import difflib
import sys
import textwrap
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from agent_service.settings import AgentSettings
from buffer_service.settings import BufferSettings
from context_service.settings import ContextSettings
from ingress.providers.evolution.settings import EvolutionSettings
from ingress.settings import IngressSettings
from service_kit.addresses import AgentAddress, BufferAddress, ContextAddress, ProcessSettings
from service_kit.settings import KNOWN_SETTINGS_FILE, Settings, names

EXAMPLE_FILE = Path(__file__).parents[1] / ".env.example"
# A variable stands in the first group that has it.
GROUPS: tuple[tuple[str, tuple[type[Settings], ...]], ...] = (
    ("every process", (ProcessSettings, BufferAddress, ContextAddress, AgentAddress)),
    ("ingress", (IngressSettings,)),
    ("ingress, provider: Evolution API", (EvolutionSettings,)),
    ("buffer_service", (BufferSettings,)),
    ("context_service", (ContextSettings,)),
    ("agent_service", (AgentSettings,)),
)
_HEADER = """\
# Every setting, with its default. Copy this file to `.env` and take the sign off what you change;
# the environment goes before `.env`. An empty value is the default. Written by `make env-example`.
"""
_WIDTH = 118


def main() -> int:
    """Write both files; with --check, compare, and answer 1 with the difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail when something is out of date")
    check = parser.parse_args().check
    return max([_settle(path, text, check=check) for path, text in rendered().items()])


def rendered() -> dict[Path, str]:
    """The files as they have to be."""
    return {EXAMPLE_FILE: example(), KNOWN_SETTINGS_FILE: known()}


def known() -> str:
    """Every variable that any process reads, one a line."""
    found = {name for _, models in GROUPS for model in models for name in names(model)}
    return "# Written by `make env-example`.\n" + "".join(f"{name}\n" for name in sorted(found))


def example() -> str:
    """The text of `.env.example`."""
    blocks = [_HEADER]
    seen: set[str] = set()
    for title, models in GROUPS:
        fields = {name: field for model in models for name, field in names(model).items() if name not in seen}
        seen |= fields.keys()
        blocks.append(f"# --- {title} ---\n")
        blocks += [_entry(name, field) for name, field in fields.items()]
    return "\n".join(blocks)


def _entry(name: str, field: FieldInfo) -> str:
    description = " ".join((field.description or "").split())
    choices = _choices(field.annotation)
    if choices:
        description = description.rstrip(".") + f". One of: {', '.join(choices)}."
    lines = textwrap.wrap(description, _WIDTH - 2)
    return "".join(f"# {line}\n" for line in lines) + f"#{name}={_default(field)}\n"


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(member.value) for member in annotation]
    return []


def _default(field: FieldInfo) -> str:
    value = None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})
    match value:
        case None:
            return ""
        case SecretStr():
            return value.get_secret_value()
        case bool():
            return str(value).lower()
        case Enum():
            return str(value.value)
        case Path():
            return str(value) if value.is_absolute() else f"./{value}"
    return str(value)


def _settle(path: Path, text: str, *, check: bool) -> int:
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if old == text:
        return 0
    if not check:
        path.write_text(text, encoding="utf-8")
        print(f"written: {path}")
        return 0
    difference = difflib.unified_diff(old.splitlines(), text.splitlines(), str(path), "from the settings", lineterm="")
    print("\n".join(difference), file=sys.stderr)
    print(f"{path.name} is out of date: make env-example", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
