"""fcot-lite: Fine-tune-CoT with a local teacher on one GPU."""

__version__ = "0.1.0"
