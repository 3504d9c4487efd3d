"""Conversations again: recorded ones against another persona or model, scripted ones as a regression suite."""
