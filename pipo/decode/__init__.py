"""Decoding methods, one file each with its step function; ``table`` lists them, ``oracle`` is their slow twin."""
