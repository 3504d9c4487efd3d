"""Starts, stops and looks after the processes on one machine. Run from the checkout, never imported by the product."""
