"""Starts a persona of one's own as a copy of an example, and looks personas over before they speak."""

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from agent_service import persona_files
from agent_service.persona import load_persona, packaged, read_persona
from agent_service.persona_check import check
from agent_service.persona_files import OWN_FOLDER, SUFFIX
from service_kit.settings import ConfigurationError

DEFAULT_EXAMPLE = "demo-solar"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_NAME_LINE = re.compile(r"^name:.*$", re.MULTILINE)


def main() -> int:
    """0 when it is done and nothing is wrong, 1 when something is wrong, 2 when it was asked for wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("new", help="copy an example")
    new.add_argument("--name", required=True, help="lower-case letters, digits and dashes")
    new.add_argument("--from", dest="example", default=DEFAULT_EXAMPLE, help="a packaged persona, or a path")
    look = commands.add_parser("check", help="look personas over")
    look.add_argument("personas", nargs="*", help="names or paths; default: the packaged ones and your own")
    look.add_argument("--packaged", action="store_true", help="the packaged ones alone")
    given = parser.parse_args()
    try:
        return make(given.name, given.example) if given.command == "new" else look_over(given.personas, given.packaged)
    except ConfigurationError as error:
        print("\n".join(str(error).split("; ")), file=sys.stderr)
        return 1


def make(name: str, example: str) -> int:
    """Copy the example to `personas/<name>`; what is there already is never touched."""
    if not _NAME.fullmatch(name) or name in packaged():
        taken = ", ".join(packaged())
        print(
            f"NAME={name}: give it a name of lower-case letters, digits and dashes, other than {taken}.",
            file=sys.stderr,
        )
        print("For example: make persona NAME=minha-empresa", file=sys.stderr)
        return 2
    target = OWN_FOLDER / name
    if target.exists():
        print(f"{target} is there already and was left as it is.", file=sys.stderr)
        return 1
    source = persona_files.find(_place(example))
    OWN_FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OWN_FOLDER, prefix=".new-") as folder:
        copy = Path(folder) / name
        copy.mkdir()
        for file, content in persona_files.read(source).contents:
            text = _NAME_LINE.sub(f"name: {name}", content.decode("utf-8"), count=1)
            (copy / (file if source.is_dir() else f"persona{SUFFIX}")).write_text(text, encoding="utf-8")
        shutil.move(copy, target)
    print(_next_steps(name, target, example))
    return 0


def look_over(personas: Sequence[str], only_packaged: bool) -> int:
    """Print what is wrong with each; 1 when one of them has an error."""
    chosen = [*personas] or [*packaged(), *([] if only_packaged else _own())]
    fine = [_look_over(_place(each)) for each in chosen]
    return 0 if all(fine) else 1


def _look_over(name_or_path: str) -> bool:
    files = persona_files.read(persona_files.find(name_or_path))
    try:
        persona = read_persona(files).persona
    except ConfigurationError as error:
        print(f"{name_or_path}: cannot be used")
        for problem in str(error).split("; "):
            print(f"  error    {problem}")
        return False
    documents = files.documents()
    found = check(persona, examples=[load_persona(name) for name in packaged()])
    errors = sum(finding.error for finding in found)
    print(f"{persona.name} (version {files.version}): {errors} errors, {len(found) - errors} warnings")
    for finding in found:
        kind = "error  " if finding.error else "warning"
        print(f"  {kind}  {documents.where(finding.loc)}: {finding.key}: {finding.what}")
    return not errors


def _own() -> list[str]:
    if not OWN_FOLDER.is_dir():
        return []
    return sorted(str(each) for each in OWN_FOLDER.iterdir() if each.suffix == SUFFIX or any(each.glob(f"*{SUFFIX}")))


def _place(name_or_path: str) -> str:
    """A bare name means one's own persona first, then a packaged one."""
    own = OWN_FOLDER / name_or_path
    return str(own) if re.fullmatch(r"[\w-]+", name_or_path) and own.exists() else name_or_path


def _next_steps(name: str, target: Path, example: str) -> str:
    files = ", ".join(sorted(each.name for each in target.iterdir()))
    return f"""\
Made       {target}, a copy of {example}
Files      {files}

Next:
  1. Edit them: persona{SUFFIX} first (who speaks), then facts, offers, script, questions. Comments explain each key.
  2. make persona-check NAME={name}
  3. SDR_PERSONA={target} in .env, make restart, make chat
     From then on what you save is spoken a moment later; a version with a mistake is not taken.

{target.parent}/ is yours: neither this repository nor make backup has it. Keep a copy, or a repository of its own."""


if __name__ == "__main__":
    sys.exit(main())
