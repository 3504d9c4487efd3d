"""The key under which tests hash contacts."""

from context_service.privacy import ContactHasher

HASHER = ContactHasher(b"a key for tests, not a secret")
