"""What may be kept of a person who was erased: a keyed hash of each contact, so that "never write to me" holds on.

Without the key a hash of a phone number could be found by trying all phone numbers.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from service_kit.settings import ConfigurationError

MIN_KEY_BYTES = 24
KEY_FILE = "privacy.key"


class ContactHasher:
    """HMAC-SHA-256 of a contact, within its tenant."""

    def __init__(self, key: bytes) -> None:
        if len(key) < MIN_KEY_BYTES:
            raise ConfigurationError(f"SDR_PRIVACY_KEY has to be at least {MIN_KEY_BYTES} bytes long")
        self._key = key

    @property
    def key_id(self) -> str:
        """Tells one key from another, and nothing about either; 16 hexadecimal digits."""
        return hmac.new(self._key, b"key id", hashlib.sha256).hexdigest()[:16]

    def hashes(self, tenant: str, aliases: tuple[str, ...]) -> tuple[str, ...]:
        """One for each alias, as 64 hexadecimal digits."""
        return tuple(hmac.new(self._key, f"{tenant}\0{one}".encode(), hashlib.sha256).hexdigest() for one in aliases)


def refuse_marks_of_others(count: int) -> None:
    """A store that holds marks of another key is not served. Raises ConfigurationError."""
    if count:
        raise ConfigurationError(
            f"The marks of people who are never to be written to ({count}) were made with another privacy key, and "
            "would protect nobody: set SDR_PRIVACY_KEY to that key, or put its privacy.key back into SDR_DATA_DIR "
            "(if it is lost: docs/howto/privacy.md)."
        )


def contact_hasher(key: str, data_dir: Path) -> ContactHasher:
    """With the key that was set, or the one that this data directory got at its first start."""
    return ContactHasher(key.encode() if key else _own_key(data_dir / KEY_FILE))


def _own_key(path: Path) -> bytes:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _create(path)
        return path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(
            f"The key file {path} cannot be used: {error.strerror or type(error).__name__}. Set SDR_PRIVACY_KEY."
        ) from error


def _create(path: Path) -> None:
    """Complete or not at all: a half key would be another key after the next start."""
    # Not the process id: in a container it is the same after a crash, whose half would be in the way for ever.
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_hex(32).encode())
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(partial, path)
    except FileExistsError:
        pass  # Another process was first; its key is the one.
    finally:
        partial.unlink()
