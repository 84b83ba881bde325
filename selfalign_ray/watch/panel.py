"""The live table on a terminal: one line a stage, two for the one that runs."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from selfalign_ray.watch.progress import (
    DONE,
    REUSED,
    RUNNING,
    WAITING,
    Progress,
    StageProgress,
)
from selfalign_ray.watch.words import amount_done, clock, rate, span

_NAME_COLUMNS = 14
_BAR_COLUMNS = (6, 30)  # least and most
_MARKS = {WAITING: ".", RUNNING: ">", DONE: "+", REUSED: "="}
_STYLES = {WAITING: "dim", RUNNING: "bold cyan", DONE: "green", REUSED: "dim green"}


def panel(
    progress: Progress, *, width: int, height: int, blocks: bool, stopping: bool = False
) -> RenderableType:
    """The table as it is now.

    Args:
        progress: what to show.
        width: columns of the terminal.
        height: its lines; where it is too low, waiting and done stages give way.
        blocks: whether the terminal can draw a bar; else it is made of `#` and `-`.
        stopping: whether the run was asked to end.
    """
    head = Text(f"selfalign  {clock(progress.elapsed)}", style="bold")
    if stopping:
        head.append("  stopping", style="yellow")
    stages = list(progress.stages)
    lines = [_lines(progress, stage, width, blocks=blocks) for stage in stages]
    hidden = 0
    for state in (WAITING, REUSED, DONE):
        while _height(lines) + 2 > height and any(s.state == state for s in stages):
            index = _first_to_hide(stages, state)
            del stages[index], lines[index]
            hidden += 1
    flat = [line for group in lines for line in group]
    if hidden:
        flat.append(Text(f"  ({hidden} more stages)", style="dim"))
    return Group(head, *flat)


def _first_to_hide(stages: Sequence[StageProgress], state: str) -> int:
    """Of waiting stages the last, of done ones the first."""
    found = [index for index, stage in enumerate(stages) if stage.state == state]
    return found[-1] if state == WAITING else found[0]


def _height(lines: Sequence[Sequence[Text]]) -> int:
    return sum(map(len, lines)) + 1


def _lines(progress: Progress, stage: StageProgress, width: int, *, blocks: bool) -> list[Text]:
    if stage.state == RUNNING and stage.ends_group:
        facts = " · ".join(progress.facts())
        lines = [_bar_line(progress, stage, width, blocks=blocks)]
        return [*lines, _cut(Text(f"{'':{_NAME_COLUMNS + 2}}{facts}"), width)] if facts else lines
    line = _name(stage)
    if stage.ends_group and stage.counts is not None:
        line.append(f"{stage.kept:>11,} kept {stage.dropped:>11,} dropped")
        time = "reused" if stage.state == REUSED else span(stage.seconds)
        line.append(f"{time:>{max(1, width - line.cell_len - 1)}}")
    elif stage.state in (RUNNING, DONE):
        line.append(progress.amount(stage), style="dim" if stage.state == DONE else "")
    return [_cut(line, width)]


def _bar_line(progress: Progress, stage: StageProgress, width: int, *, blocks: bool) -> Text:
    done, total = progress.rows_done(stage), stage.total
    if done is None or not total:
        right = f"    {amount_done(done, total)}"
    else:
        right = f" {done:,}/{total:,} {100 * done / total:3.0f} %"
    if per_second := progress.rows_per_second():
        right += f"  {rate(per_second)}"
    left = progress.seconds_left()
    right += f"  {clock(progress.group_seconds)}" if left is None else f"  ETA {clock(left)}"
    line = _name(stage)
    if total and done is not None:
        least, most = _BAR_COLUMNS
        columns = min(most, max(least, width - line.cell_len - len(right) - 1))
        line.append_text(_bar(min(1.0, done / total), columns, blocks=blocks))
    line.append(right)
    return _cut(line, width)


def _bar(share: float, columns: int, *, blocks: bool) -> Text:
    full, empty = ("━", "─") if blocks else ("#", "-")
    filled = int(share * columns)
    return Text.assemble((full * filled, "cyan"), (empty * (columns - filled), "dim"))


def _name(stage: StageProgress) -> Text:
    style = _STYLES[stage.state]
    return Text.assemble((f"{_MARKS[stage.state]} {stage.name:<{_NAME_COLUMNS}}", style))


def _cut(line: Text, width: int) -> Text:
    line.truncate(width - 1, overflow="ellipsis")
    line.no_wrap = True
    return line
