"""What is kept of an erased person: a hash that nobody without the key can look up."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from context_service.privacy import MIN_KEY_BYTES, ContactHasher, contact_hasher
from service_kit.settings import ConfigurationError
from tests.context_service.keys import HASHER

ALIASES = ("phone:5581999990001", "lid:1")


def test_a_hash_depends_on_key_tenant_and_alias_and_on_nothing_else() -> None:
    hashes = HASHER.hashes("default", ALIASES)
    assert hashes == HASHER.hashes("default", ALIASES)
    assert HASHER.hashes("default", ALIASES[::-1]) == hashes[::-1]
    other_key = ContactHasher(b"another key for tests, no secret")
    all_of_them = [*hashes, *HASHER.hashes("other", ALIASES), *other_key.hashes("default", ALIASES)]
    assert len(set(all_of_them)) == 6
    assert all(len(one) == 64 and set(one) <= set("0123456789abcdef") for one in all_of_them)


def test_a_key_is_told_from_another_without_being_told() -> None:
    other_key = ContactHasher(b"another key for tests, no secret")
    assert HASHER.key_id != other_key.key_id and len(HASHER.key_id) == 16
    assert b"another key for tests, no secret"[:4].hex() not in other_key.key_id


def test_tenant_and_alias_cannot_be_shifted_into_one_another() -> None:
    assert HASHER.hashes("a", ("bc",)) != HASHER.hashes("ab", ("c",))


def test_a_data_directory_gets_a_key_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    first = contact_hasher("", tmp_path / "data").hashes("default", ALIASES)
    assert contact_hasher("", tmp_path / "data").hashes("default", ALIASES) == first
    assert contact_hasher("", tmp_path / "other").hashes("default", ALIASES) != first
    key = tmp_path / "data" / "privacy.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) >= MIN_KEY_BYTES
    assert [path.name for path in key.parent.iterdir()] == ["privacy.key"], "nothing half written is left"


async def test_two_processes_that_start_at_once_agree_on_the_key(tmp_path: Path) -> None:
    made = await asyncio.gather(*(asyncio.to_thread(contact_hasher, "", tmp_path / "data") for _ in range(16)))
    assert len({one.hashes("default", ALIASES) for one in made}) == 1


def test_what_a_crash_left_is_in_nobodys_way(tmp_path: Path) -> None:
    """It was named by the process id, which in a container is the same after a crash: no start went well again."""
    (tmp_path / f"privacy.key.{os.getpid()}").write_text("half")
    assert contact_hasher("", tmp_path).hashes("default", ALIASES) == contact_hasher("", tmp_path).hashes(
        "default", ALIASES
    )


def test_a_key_that_was_set_goes_before_the_file(tmp_path: Path) -> None:
    key = "k" * MIN_KEY_BYTES
    assert contact_hasher(key, tmp_path).hashes("x", ALIASES) == ContactHasher(key.encode()).hashes("x", ALIASES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["short", "k" * (MIN_KEY_BYTES - 1)])
def test_a_short_key_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigurationError, match="at least 24 bytes"):
        contact_hasher(key, tmp_path)
    (tmp_path / "privacy.key").write_text(key)
    with pytest.raises(ConfigurationError, match="at least 24 bytes"):
        contact_hasher("", tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"privacy\.key cannot be used: .* Set SDR_PRIVACY_KEY"):
        contact_hasher("", tmp_path / "file")
