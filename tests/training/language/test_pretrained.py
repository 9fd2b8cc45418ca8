"""Reading a model says nothing to the rest of the process, nor to anybody outside."""

import os
import subprocess
import sys
from pathlib import Path

from tests.training.synthetic import write_encoder

CODE = """
import os, sys
from training.language.pretrained import read_pretrained
read_pretrained(sys.argv[1])
from huggingface_hub import constants
assert not constants.HF_HUB_OFFLINE, "the whole process is offline"
assert not {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} & set(os.environ)
"""


def test_a_local_model_leaves_the_process_online_and_asks_nobody(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "encoder")
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    environ = {name: value for name, value in os.environ.items() if name not in names}
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    argv = [sys.executable, "-c", CODE, str(folder)]
    done = subprocess.run(argv, env={**environ, **nowhere}, capture_output=True, text=True, timeout=120)  # noqa: PLW1510
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "hub").exists()
