"""Benchmark texts: what they are, and which rows hold them."""
