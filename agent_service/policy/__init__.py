"""What a language model's text has to pass before a lead reads it. Pure modules; `output_policy` puts them together."""
