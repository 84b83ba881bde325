"""Runs programs that nobody has read; the face is `pool.Sandbox`.

Nothing is imported here: the jailed processes import parts of this package, and must not load
the rest of it.
"""
