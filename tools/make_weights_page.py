"""Write docs/weights.md: which published weights load into what, from the table of spandrel's architectures."""

from __future__ import annotations

from pathlib import Path

from relume.archs.zoo.detection import UNKNOWABLE
from relume.archs.zoo.table import EXTRA, ROWS, ZooRow

PAGE = Path(__file__).resolve().parent.parent / "docs" / "weights.md"
HEAD = """\
# Which published weights load here

Weights of other programs, as `.pth` or `.safetensors`, can be named as `path.pretrain_network_g`, tested and used:

```yaml
# published.yml
name: published
model_type: SRModel
scale: 2
datasets:
  test: {name: own, type: PairedImageDataset, dataroot_gt: data/val/gt, dataroot_lq: data/val/lq}
path: {pretrain_network_g: weights/2x_model.pth}
val: {metrics: {psnr: {type: calculate_psnr}}}
```

`relume test -opt published.yml` needs no `network_g` where Relume recognises the network: it derives the
architecture and its options from names and shapes (spandrel's detection). The log shows them as a block that you
can paste into an option file. `relume.load("x.pth")` does the same. Files that wrap the weights as `params`,
`params_ema`, `state_dict` and so on, names that begin with `module.`, and ESRGAN's first names (`model.0.weight`,
`RRDB_trunk`) are understood. A file that would run code is refused; `relume convert` extracts its weights. NaN,
infinite, complex, integer, sparse and quantised numbers are refused too; the message names the file and the entry.

Options that cannot be derived from weights get their usual values, and the log names them; give `network_g` where
yours differ. Buffers that depend only on `img_size` (such as `attn_mask`) may differ in size; the network keeps its
own.

## Relume's own

| weights of | `network_g.type` | without `network_g` |
|---|---|---|
| ESRGAN, Real-ESRGAN, BSRGAN | RRDBNet | yes, also under ESRGAN's old names (x4) |
| Real-ESRGAN's small networks | SRVGGNetCompact | yes |
| NAFNet | NAFNet | yes |
| Restormer | Restormer | yes |
| all others of `relume list archs` | their own names | yes, where Relume wrote the file |

## spandrel's

Every row is built, trained for two steps, saved and loaded in `tests/archs/test_zoo.py`, and recognised in
`tests/archs/test_detection.py`. Of DnCNN, DRUNet, FBCNN, GFPGAN and RestoreFormer only the usual size is recognised.

| `network_g.type` | also | licence | options not in the weights | trains |
|---|---|---|---|---|
"""
TAIL = """
## Under restrictive licences

`pip install spandrel_extra_arches` adds these; none of them may be used commercially, which `relume list archs`
says as well.

| `network_g.type` | also | licence | trains |
|---|---|---|---|
"""


def page() -> str:
    """The page's text."""
    own = [(*cells(name, row), ", ".join(UNKNOWABLE.get(name, ())), trains(row)) for name, row in ordered(ROWS)]
    extra = [(*cells(name, row), trains(row)) for name, row in ordered(EXTRA)]
    return f"{HEAD}{lines(own)}{TAIL}{lines(extra)}"


def ordered(rows: dict[str, ZooRow]) -> list[tuple[str, ZooRow]]:
    """By name, whatever its case."""
    return sorted(rows.items(), key=lambda item: item[0].lower())


def cells(name: str, row: ZooRow) -> tuple[str, str, str]:
    """What both tables say first."""
    return name, ", ".join(row.aliases), row.licence


def trains(row: ZooRow) -> str:
    """Whether an architecture can be trained, and why not."""
    return f"no: {row.untrainable}" if row.untrainable else "yes"


def lines(table: list[tuple[str, ...]]) -> str:
    """Rows in Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in table)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
