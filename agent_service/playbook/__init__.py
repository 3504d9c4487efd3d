"""The deterministic dialogue: reads a turn, decides what is next in the persona's script, and words the reply."""
