"""The only process that faces the internet: webhook edge, turn runner and sender."""
