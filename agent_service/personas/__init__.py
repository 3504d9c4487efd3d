"""Packaged personas: everything that belongs to a business, as data."""
