"""What the running system was started with: the tools have to reach that one, and a change shows."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from deploy.doctor import ADDRESSES, DATA_DIR, read_settings
from deploy.supervision import CONFIG_FILE
from service_kit.settings import FOREIGN_PREFIXES, OWN_PREFIX

_FILE = "started_with.json"
_ADDRESSES_FILE = "started_at.json"


def remember(data_dir: Path) -> None:
    """Note it, for the tools that come later."""
    settings = read_settings(Path.cwd(), os.environ)
    where = {name: settings[name] for name in ADDRESSES}
    for name, noted in ((_FILE, fingerprint(os.environ, Path(".env"))), (_ADDRESSES_FILE, where)):
        file = data_dir / name
        file.write_text(json.dumps(noted, indent=1), encoding="utf-8")
        file.chmod(0o600)


def addresses(data_dir: Path) -> dict[str, str]:
    """By variable, the addresses that it listens on."""
    return _read(data_dir / _ADDRESSES_FILE)


def differences(data_dir: Path, *, with_code: bool = True) -> list[str]:
    """Names of the settings that have another value now; without `with_code`, not what comes with the code."""
    before, now = _read(data_dir / _FILE), fingerprint(os.environ, Path(".env"))
    # Without a record there is nothing to compare with.
    changed = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)} if before else set()
    return sorted(changed if with_code else changed - {CONFIG_FILE.name})


def fingerprint(environ: Mapping[str, str], env_file: Path) -> dict[str, str]:
    """By name, a digest of everything that the processes read when they start."""
    given = {**(dotenv_values(env_file) if env_file.is_file() else {}), **environ}
    prefixes = (OWN_PREFIX, *FOREIGN_PREFIXES)
    # The directory is the one that this is kept in, however it is spelt.
    values = {name: value for name, value in given.items() if name.startswith(prefixes) and value and name != DATA_DIR}
    values[CONFIG_FILE.name] = CONFIG_FILE.read_text(encoding="utf-8")
    return {
        name: hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest() for name, value in values.items()
    }


def _read(file: Path) -> dict[str, str]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
