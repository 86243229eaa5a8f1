"""The daemon: jobs, residents, the worker that runs them, and the client. PROTOCOL.md has the last word.

Torch-free, all but the jobs themselves, which ``pipod.worker`` imports when it runs one.
"""
