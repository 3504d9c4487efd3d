"""Brazilian Portuguese as people type it: pure functions, no business word in them."""
