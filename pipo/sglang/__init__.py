"""PIPO in stock SGLang 0.5.23, out of its tree: the only room that imports sglang, and only when the runtime starts.

``pairs`` packs tokens, ``table`` lists every hook, ``plugin`` puts them in and checks that each took, ``hooks`` and
``models`` are what runs inside SGLang's processes. ``launch`` starts and stops a server, ``engine`` is our engine
interface over it, ``rig`` makes it run without a GPU. The last three import no sglang.
"""
