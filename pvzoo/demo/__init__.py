"""The main job on people that nobody has seen: drawn, enrolled, verified, identified, and shown on one page."""
