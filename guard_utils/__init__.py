"""Fine-tune Llama Guard to report every privacy category a prompt violates, and measure it honestly."""

__version__ = "0.1.0"
