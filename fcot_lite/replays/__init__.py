"""How a text is followed for one family of tasks each; see fcot_lite/replay.py."""
