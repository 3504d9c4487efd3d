"""The resident agent: persona, prompt and model. It keeps no state of any conversation."""
