"""The load engine against servers whose answer is known."""
