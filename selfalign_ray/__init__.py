"""Self-aligned, executed instruction data as a Ray batch job; read `pipeline.py` first."""
