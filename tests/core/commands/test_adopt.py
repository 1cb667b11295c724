"""``relume adopt``: a fork's option file with the right plug-ins."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from forks import VENDORED, write

from relume.core import options
from relume.core.cli import main

FILE = """\
# general settings
name: wide
model_type: SRModel
scale: 2
num_gpu: 0

# data
datasets:
  train:
    type: NoisyPairDataset
    dataroot_gt: gt
    dataroot_lq: lq
    io_backend:
      type: disk
    batch_size_per_gpu: 2

network_g:
  type: WideNet
  num_feat: 4

train:
  total_iter: 4
  optim_g: {type: Adam, lr: !!float 1e-3}
  pixel_opt: {type: LogLoss, loss_weight: 1.0}
  l1_opt: {type: L1Loss}

val:
  metrics:
    psnr: {type: calculate_psnr, crop_border: 2}
    blur: {type: calculate_blur, crop_border: 2, better: lower}
"""


@pytest.fixture()
def fork(tmp_path: Path) -> Path:
    """A fork, and its option file in ``options``."""
    (tmp_path / "fork" / "options").mkdir(parents=True)
    (tmp_path / "fork" / "options" / "x.yml").write_text(FILE)
    return write(tmp_path / "fork", VENDORED)


def test_the_file_is_written_with_its_plug_ins(fork: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = fork.parent / "here.yml"
    assert main(["adopt", str(fork), str(fork / "options/x.yml"), "-o", str(output)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"wrote {output}\nplugins: 4 of the fork's files are needed\n")
    assert said.rstrip().endswith("it is valid: train it with relume train -opt FILE")
    text = output.read_text()
    assert text.replace(text[text.index("plugins:") : text.index("# data")], "") == FILE
    files = ["archs/wide_arch", "data/noisy_dataset", "losses/losses", "metrics/blur_metric"]
    assert yaml.safe_load(text)["plugins"] == [f"fork/basicsr/{name}.py" for name in files]
    assert options.load(output).network_g["type"] == "WideNet"
    assert sorted(p.name for p in fork.parent.iterdir()) == ["fork", "here.yml"]


def test_or_printed_with_what_remains(fork: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = fork / "options/x.yml"
    file.write_text(FILE.replace("SRModel", "WideModel").replace("type: Adam", "type: Adma"))
    assert main(["adopt", str(fork), str(file)]) == 0
    said = capsys.readouterr().out
    opt = yaml.safe_load(said)
    assert opt["plugins"][0] == "../basicsr/archs/wide_arch.py" and file.read_text().startswith("# general")
    remains = said[said.index("# what remains:") :]
    assert "#   line 3: " in remains and "no model is called 'WideModel'" in remains
    assert "no optimizer is called 'Adma'. Did you mean 'Adam'?" in remains


def test_a_name_that_both_have_is_ours_unless_its_keys_are_not(fork: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = fork / "options/x.yml"
    file.write_text(FILE.replace("type: WideNet", "type: SwinIR").replace("num_feat: 4", "anything: 2"))
    assert main(["adopt", str(fork), str(file)]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["plugins"][0] == "../basicsr/archs/wide_arch.py"
    file.write_text(FILE.replace("type: WideNet", "type: SwinIR").replace("num_feat: 4", "embed_dim: 60"))
    assert main(["adopt", str(fork), str(file)]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["plugins"][0] == "../basicsr/data/noisy_dataset.py"


def test_mistakes(fork: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adopt", str(fork / "nowhere"), str(fork / "options/x.yml")]) == 2
    assert main(["adopt", str(fork), str(fork / "nowhere.yml")]) == 2
    (fork / "options/x.yml").write_text(f"plugins: [a.py]\n{FILE}")
    assert main(["adopt", str(fork), str(fork / "options/x.yml")]) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.endswith("nowhere: no such folder") and "nowhere.yml" in second
    assert third.endswith("it names plugins already; take that key out, and it will be written anew")
