"""Load: requests that arrive as they do, on an engine or an endpoint, and what became of each. Torch-free.

A *point* is one variant under one load (a rate, a concurrency, a trace); it is what a job resumes by. Each request has
the moment it was *due*, and all its times count from there: a client that is late makes no server faster.
"""
