"""The plugin for those who call ms-swift themselves: ``swift sft --external_plugins .../pipo/swift/plugin.py ...``.

What ms-swift's flags do not say has the paper's values; ``pipo train sft --backend swift --show-command`` writes a
plugin with settings of its own.
"""

from pipo.swift.registry import register

register()
