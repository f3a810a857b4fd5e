"""How well a matcher tells palms apart."""
