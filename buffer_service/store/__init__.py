"""Stores of the buffer, chosen by SDR_BUFFER_STORE."""
