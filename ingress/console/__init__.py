"""The console's web page."""
