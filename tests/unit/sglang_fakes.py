"""Model folders of headers only, and a stand-in for SGLang's HTTP server that fails on demand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pipo.sglang.launch import Launch
from pipo.sglang.machine import free_port

HEADS = ("compressor.mlp.0.weight", "confidence_head.fc1.weight", "mtp.fc.weight")

# Answers as SGLang does where the engine asks. "dies" in its folder: how often it still ends in the middle of a stream.
SERVER = """
import json, os, pathlib, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
folder, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])

class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def answer(self, value):
        data = json.dumps(value).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(data))); self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        self.answer({"max_total_num_tokens": 1000} if self.path == "/server_info" else {})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/generate":
            with open(folder / "posts", "a") as f: f.write(self.path + " " + json.dumps(body) + "\\n")
            return self.answer({"success": True})
        self.send_response(200); self.end_headers()
        n = body["sampling_params"]["max_new_tokens"]
        for i in range(n):
            last = {"type": "length", "length": n} if i == n - 1 else None
            chunk = {"output_ids": [10 + i], "meta_info": {"finish_reason": last}}
            self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\\n\\n"); self.wfile.flush()
            left = int((folder / "dies").read_text() or 0) if (folder / "dies").exists() else 0
            if i == 2 and left:
                (folder / "dies").write_text(str(left - 1))
                print("RuntimeError: the device is lost", flush=True); time.sleep(0.3); os._exit(1)
            time.sleep(0.002)
        self.wfile.write(b"data: [DONE]\\n\\n")

print("Load weight begin", flush=True)
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def model_folder(folder: Path, *tensors: str, shape: tuple[int, ...] = (4, 2), **config: Any) -> Path:
    """A folder with a config and a safetensors header of these tensors, without their data."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {
        "model_type": "qwen3", "vocab_size": 128, "pad_token_id": 0, "eos_token_id": 2, "max_position_embeddings": 64,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({**usual, **config}))
    names = ("model.embed_tokens.weight", *tensors)
    header = json.dumps({n: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for n in names}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return folder


def pipo_folder(folder: Path, **config: Any) -> Path:
    return model_folder(folder, *HEADS, compressor_type="mlp", **config)


def script_launch(folder: Path, script: str, *arguments: str, secret: str | None = None, env: Any = None) -> Launch:
    """A launch of a script in place of SGLang; it gets ``folder`` and the port."""
    import os

    port = free_port("127.0.0.1")
    file = folder / "server.py"
    file.write_text(script)
    command = [sys.executable, str(file), str(folder), str(port), *arguments]
    return Launch(command, env or dict(os.environ), "127.0.0.1", port, "tiny", secret)
