"""Published benchmarks as items to ask: what each is (a TOML a benchmark), where its file lies, how a row is read.

Torch-free, so that the command line can list them. Items themselves are never shipped: they come from a folder that the
user names, or from what `pipo data pull` fetched. Scoring is not done here; a definition only names how.
"""

from pipo.data.benchmarks.definitions import NAMES, PLAIN, Definition, read_definition, shipped
from pipo.data.benchmarks.items import Entry, Program
from pipo.data.benchmarks.load import Asked, Benchmark, load
from pipo.data.benchmarks.selection import parse_slice, take
from pipo.data.benchmarks.sources import Found, find, folders, look

__all__ = [
    "NAMES", "PLAIN", "Asked", "Benchmark", "Definition", "Entry", "Found", "Program", "find", "folders", "load",
    "look", "parse_slice", "read_definition", "shipped", "take",
]  # fmt: skip
