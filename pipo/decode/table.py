"""The table of decoding methods: whoever adds one adds its file and a row here."""

from __future__ import annotations

from pipo.decode import eagle, mtp, pipo, random, regular
from pipo.engine.frame import Decoder

DECODERS: dict[str, Decoder] = {
    "regular": regular.DECODER,
    "mtp": mtp.DECODER,
    "eagle": eagle.DECODER,
    "pipo": pipo.DECODER,
    "random": random.DECODER,
}
