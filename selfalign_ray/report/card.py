"""`README.md` of the folder `dataset/`: the card that says what the rows are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from selfalign_ray.config import RunConfig
from selfalign_ray.decontamination.benchmarks import CHECKED
from selfalign_ray.hops.generate import pools_of
from selfalign_ray.ids import content_id
from selfalign_ray.places import shown
from selfalign_ray.report.contamination import Contamination
from selfalign_ray.report.figures import NO_LICENSE, Figures, is_standin, most_first
from selfalign_ray.report.funnel import Funnel
from selfalign_ray.report.md import cell, percent, section, table
from selfalign_ray.watch.masking import Masker

Facts = dict[str, Any]  # plain data, kept beside the card

_REPOSITORIES = 20  # in the card's table
# What a hub calls the licences that a seed is likely to have, less the end of GNU's identifiers:
# https://huggingface.co/docs/hub/repositories-licenses. Any other is `other` there.
_HUB_LICENSES = (
    "afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0",
    "cc0-1.0 ecl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 gpl-2.0 gpl-3.0 isc lgpl-2.1 lgpl-3.0",
    "lppl-1.3c mit mpl-2.0 ms-pl ncsa osl-3.0 postgresql unlicense wtfpl zlib",
)
_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}


@dataclass
class Counts:
    """What the card says of the rows themselves; taken while they are written."""

    rows: int = 0
    licenses: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    repositories: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)

    def add(self, row: Mapping[str, Any]) -> None:
        origin = row["origin"]
        self.rows += 1
        self.licenses.update(origin["licenses"] or [NO_LICENSE])
        self.sources[origin["dataset"] or origin["source"]] += 1
        self.repositories[origin["repository"] or ""] += 1
        self.models[row["model"] or ""] += 1


def facts_of(
    cfg: RunConfig,
    funnel: Funnel,
    figures: Figures,
    contamination: Contamination | None,
) -> Facts:
    """What the card says that the rows do not.

    Args:
        cfg: the run's settings.
        funnel: where the rows went.
        figures: with the models that wrote.
        contamination: which benchmarks were sought; None where none was.
    """
    hops = {
        name: {"shots": hop.shots, "temperature": hop.sampling.temperature, "n": hop.sampling.n}
        for name, hop in cfg.recipe.hops.items()
    }
    facts = {
        "name": cfg.name,
        "run": run_id(cfg),
        "rows_per_file": cfg.report.rows_per_file,
        "standin": is_standin(cfg, figures),
        "model": ", ".join(dict.fromkeys(model.id for model, _ in pools_of(cfg).values())),
        "written_by": list(figures.models),
        "engine": ", ".join(dict.fromkeys(engine.kind for _, engine in pools_of(cfg).values())),
        "source": cfg.source.kind,
        "run_seed": cfg.run_seed,
        "hops": hops,
        "choose": cfg.selection.choose.by,
        "benchmarks": [
            {name: each[name] for name in ("benchmark", "state", "revision", "items")}
            | {"stage": None if each["stages"] == contamination.stages else each["stages"][0]}
            for each in contamination.benchmarks
        ]
        if contamination
        else [],
        "files": funnel.files,
        "files_dropped": [[*why, number] for why, number in funnel.files_dropped.items()],
        "files_with_functions": funnel.files_with_functions if funnel.files is not None else None,
        "funnel": [
            {
                "stage": step.name,
                "rows": step.rows,
                "kept": step.kept,
                "dropped": [[*why, number] for why, number in step.dropped.items()],
            }
            for step in funnel.steps
        ],
        "ended_by": list(funnel.ended_by) if funnel.ended_by else None,
        "left_out": dict(funnel.left_out),
        "withdrawn": 0,  # ids
    }
    masked: Facts = Masker(os.environ).tree(facts)
    return masked


def run_id(cfg: RunConfig) -> str:
    """A name of the run's place that does not tell the place."""
    return content_id(shown(Path(cfg.run_dir)))[:12]


def after_withdrawal(facts: Facts, rows: int, ids: int) -> Facts:
    """The facts of a data set that has lost some rows: the funnel has a step more.

    Args:
        facts: before.
        rows: of the data set that have gone.
        ids: that have been withdrawn from it, all times together.
    """
    facts = {**facts, "withdrawn": ids}
    if not rows:
        return facts
    before = facts["funnel"][-1]["kept"] if facts["funnel"] else rows
    why = ["withdrawal", "withdrawn", rows]
    step = {"stage": why[0], "rows": before, "kept": before - rows, "dropped": [why]}
    ended_by = facts["ended_by"] if before > rows else why
    return {**facts, "funnel": [*facts["funnel"], step], "ended_by": ended_by}


def card(facts: Facts, counts: Counts, files: Mapping[str, str]) -> str:
    """The whole file.

    Args:
        facts: what the rows do not say.
        counts: of the rows.
        files: a pattern of paths for each subset.
    """
    sections = [
        f"---\n{_front_matter(facts, counts, files)}---",
        f"# {cell(facts['name'])}",
        *_banner(facts),
        _what(facts, counts),
        section("Use", _USE),
        section("How it was made", _made(facts)),
        section("Funnel", _funnel(facts)),
        section("Licences", _licenses(counts)),
        section("Sources", _sources(counts)),
        section("Benchmarks", _benchmarks(facts)),
        section("Limits", _LIMITS),
        section("Withdrawal", _withdrawal(facts)),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def hub_licenses(licenses: Mapping[str, int]) -> list[str]:
    """The licences in a hub's names, each once, the commonest first."""
    found = (_hub_license(name) for name in licenses)
    return list(dict.fromkeys(found))


_USE = """```python
from datasets import load_dataset

pairs = load_dataset("FOLDER", split="train")  # every column
chats = load_dataset("FOLDER", "messages", split="train")  # the pairs as chats
```

`row_id` and `sample_index` name a row in both. `response` is what to learn from; `code` and
`tests` are what was executed; `origin` is where the seed came from, with its licences; `verdict`
and `metrics` are those of this response; `pass_rate` is the share of all responses to the
instruction that passed, and so its difficulty for the model."""

_LIMITS = """- Instructions, responses and tests were written by a model. Nobody has read them.
- A response has passed its own tests, in a sandbox. Tests that the same model wrote may be weak
  or wrong, and so may a response that passes them.
- The seed is open source under the licences of its row; what a model wrote after it may resemble
  it, or other text that the model has seen. Whether that makes a derived work is not decided here.
- Benchmarks were sought by their words and syntax. A task that says the same in other words is
  not found.
- English instructions, Python code, no dialogue of more than one turn."""


def _front_matter(facts: Facts, counts: Counts, files: Mapping[str, str]) -> str:
    licenses = hub_licenses(most_first(counts.licenses))
    front: dict[str, Any] = {"pretty_name": facts["name"], "language": ["en"]}
    if licenses:
        front["license"] = licenses[0] if len(licenses) == 1 else licenses
    front["task_categories"] = ["text-generation"]
    front["tags"] = ["code", "python", "synthetic", "instruction-tuning", "executed"]
    front["size_categories"] = [_size(counts.rows)]
    front["configs"] = [
        {
            "config_name": name,
            **({"default": True} if name == "default" else {}),
            "data_files": [{"split": "train", "path": path}],
        }
        for name, path in files.items()
    ]
    return str(yaml.safe_dump(front, sort_keys=False, allow_unicode=True))


def _size(rows: int) -> str:
    return next((name for limit, name in _SIZES.items() if rows < limit), "1M<n<10M")


def _hub_license(spdx: str) -> str:
    if spdx == NO_LICENSE:
        return "unknown"
    name = spdx.lower().removesuffix("-only").removesuffix("-or-later")
    return name if name in " ".join(_HUB_LICENSES).split() else "other"


def _banner(facts: Facts) -> Iterator[str]:
    if facts["standin"]:
        yield (
            "> **STAND-IN ENGINE: NOT A RESULT.** No model wrote these rows: worked examples stand "
            "in their place, to try the pipeline. Do not train on them."
        )
    for stage, number in facts.get("left_out", {}).items():
        yield (
            f"> **Partial**: made before the run was done. {number:,} rows had not been through "
            f"the stage {cell(stage)}."
        )


def _what(facts: Facts, counts: Counts) -> str:
    models = ", ".join(most_first(counts.models)) or ", ".join(facts["written_by"])
    text = f"**{counts.rows:,} pairs** of an instruction and a response in Python"
    text += f", written by {cell(models)} and executed." if models else "."
    if counts.rows:
        return text
    stage, reason, number = facts["ended_by"] or ("read", "no row at all", 0)
    return (
        f"{text}\n\n**This data set is empty**: the last rows were dropped in the stage "
        f"{cell(stage)}, most for {cell(reason)} ({number:,} rows). `datasets` opens an empty one "
        "with `streaming=True` alone."
    )


def _made(facts: Facts) -> str:
    hops = [
        (name, hop["shots"], f"{hop['temperature']:g}", hop["n"])
        for name, hop in facts["hops"].items()
    ]
    rows = [
        ("source", facts["source"]),
        ("model", facts["model"]),
        ("engine", facts["engine"]),
        ("run_seed", str(facts["run_seed"])),
        ("response chosen by", facts["choose"]),
    ]
    text = (
        "Functions of open source pass static rules, and from each a model takes concepts, makes "
        "an instruction of them, and writes responses with tests; a sandbox runs them, and what "
        "passes is measured, sanitised and chosen "
        "([SelfCodeAlign](https://arxiv.org/abs/2410.24198))."
    )
    recipe = table(
        ("step of the recipe", "examples shown", "temperature", "draws"), hops, numbers=3
    )
    return "\n\n".join([text, table(("setting", ""), rows), recipe])


def _funnel(facts: Facts) -> str:
    rows: list[tuple[object, ...]] = []
    if facts["files"] is not None:
        rows.append(("read", "files", facts["files"], None))
        rows += [(stage, f"- {why}", number, None) for stage, why, number in facts["files_dropped"]]
        rows.append(("functions", "files with functions", facts["files_with_functions"], None))
    for step in facts["funnel"]:
        rows += [(stage, f"- {why}", number, None) for stage, why, number in step["dropped"]]
        share = step["kept"] / step["rows"] if step["rows"] else None
        rows.append((step["stage"], f"**kept** of {step['rows']:,}", step["kept"], percent(share)))
    return table(("stage", "", "number", "share"), rows, numbers=2)


def _licenses(counts: Counts) -> str:
    rows = [
        (name, number, percent(number / counts.rows))
        for name, number in most_first(counts.licenses).items()
    ]
    text = (
        "Of the seeds, as SPDX identifiers; all that a row names apply to its seed. Each row has "
        "its own in `origin.licenses`."
    )
    return "\n\n".join([text, table(("licence", "rows", "share"), rows, numbers=2)]) if rows else ""


def _sources(counts: Counts) -> str:
    most = list(most_first(counts.repositories).items())
    rest = len(most) - _REPOSITORIES
    tables = [
        table(("source", "rows"), list(most_first(counts.sources).items()), numbers=1),
        table(("repository", "rows"), most[:_REPOSITORIES], numbers=1),
        f"{rest:,} more repositories are in `origin.repository`." if rest > 0 else "",
    ]
    return "\n\n".join(text for text in tables if text)


def _benchmarks(facts: Facts) -> str:
    rows = [
        (
            each["benchmark"],
            f"{each['state']}, {stage} alone" if (stage := each.get("stage")) else each["state"],
            each["revision"],
            each["items"] if each["state"] == CHECKED else None,
        )
        for each in facts["benchmarks"]
    ]
    if not any(each["state"] == CHECKED for each in facts["benchmarks"]):
        return "**No benchmark was sought**: rows may hold the text of any."
    text = (
        "Seeds and pairs that hold a task, solution or test of a benchmark that was checked have "
        "been dropped."
    )
    return f"{text}\n\n{table(('benchmark', '', 'revision', 'items'), rows, numbers=1)}"


def _withdrawal(facts: Facts) -> str:
    text = (
        "`selfalign-withdraw FOLDER LIST` takes the rows of a list of repositories, blobs, files, "
        "seeds or rows out of this folder."
    )
    if number := facts["withdrawn"]:
        text += f" {number:,} {'id has' if number == 1 else 'ids have'} been withdrawn."
    return text
