"""Heat maps: the result over any two swept numbers, and the error over a size and the epochs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import altair as alt

from ockham.report.analysis import Configuration, Results, is_logarithmic
from ockham.report.curves import time_axis
from ockham.report.drawing import Figure, Rows, framed, inline_data, number_tip, with_interval
from ockham.report.sizes import swept_sizes

#: Fewer values on an axis are a table rather than a map.
FEWEST_VALUES = 3
#: A map has cells for at least this share of the pairs of its values: the trials of a random search have none in common.
SHARE_OF_CELLS = 0.5
#: Each cell of so many is labelled; of more the round numbers of the scale.
MOST_LABELS = 16
#: So many epochs stand on the axis of a map, evenly on its scale.
MOST_EPOCHS = 40
WIDTH, HEIGHT = 290, 240


@dataclass(frozen=True)
class Axis:
    """An axis of cells, each with its value in the middle; logarithmic where the values above 0 are.

    There 0 stands a step below the smallest other value.
    """

    title: str
    values: Sequence[float]

    @property
    def logarithmic(self) -> bool:
        positive = [value for value in self.values if value > 0]
        return len(positive) > 1 and min(self.values) >= 0 and is_logarithmic(positive)

    @property
    def places(self) -> list[float]:
        """Where the values stand."""
        if self.logarithmic and self.values[0] == 0:
            return [self.values[1] ** 2 / self.values[2], *self.values[1:]]
        return list(self.values)

    def edges(self) -> dict[float, tuple[float, float]]:
        """The ends of the cell of each value: half way to its neighbours, on the scale."""
        forward, back = (math.log, math.exp) if self.logarithmic else (float, float)
        at = [forward(place) for place in self.places]
        inner = [(low + high) / 2 for low, high in pairwise(at)]
        ends = [at[0] - (inner[0] - at[0]), *inner, at[-1] + (at[-1] - inner[-1])]
        return {value: (back(ends[i]), back(ends[i + 1])) for i, value in enumerate(self.values)}

    def channel(self, kind: Any, field: str) -> Any:
        """A channel of Altair, alt.X or alt.Y, that shows this axis."""
        edges = self.edges()
        domain = [edges[self.values[0]][0], edges[self.values[-1]][1]]
        scale = alt.Scale(type="log" if self.logarithmic else "linear", domain=domain, nice=False)
        label = "abs(datum.value) < 0.001 && datum.value != 0 ? format(datum.value, '.2~e') : format(datum.value, '~g')"
        if self.logarithmic and self.values[0] == 0:
            label = f"datum.value < {self.values[1]} ? '0' : ({label})"
        ticks = self.places if len(self.values) <= MOST_LABELS else alt.Undefined
        axis = alt.Axis(values=ticks, labelExpr=label, labelOverlap="greedy", labelSeparation=8, grid=False)
        return kind(f"{field}:Q", scale=scale, axis=axis, title=self.title)


def heat_maps(results: Results) -> Iterator[Figure]:
    """For each two swept numbers of which the sweep has a grid: the best configuration of each pair of values."""
    keys = [key for key in results.swept if len(results.numbers(key)) >= FEWEST_VALUES]
    for up, across in combinations(keys, 2):
        maps = {
            options: cells
            for options, cells in results.best_by_numbers(across, up).items()
            if _is_grid(list(cells))
        }  # fmt: skip
        charts = [
            _cells_chart(
                options, _axis(across, [x for x, _ in cells]), _axis(up, [y for _, y in cells]), _results(results, cells)
            )
            for options, cells in sorted(maps.items())
        ]
        if not charts:
            continue
        what = f"error of {results.objective} (1 - accuracy)" if results.maximise else results.objective
        text = (
            f"Colour is the {what}, mean over seeds, on a logarithmic scale; the worst quarter has one colour. Of other "
            "settings the best stands in each cell; the ring is the best cell. Grey cells have no result: their runs diverged, "
            f"failed or have not ended. The table has the best {across} for each {up}, with {results.objective} and its 95% "
            "interval."
        )
        name = f"map-{up}-{across}".replace(".", "-")
        chart = alt.concat(*charts, columns=2).resolve_scale(color="shared")
        yield framed(name, f"{up} and {across}", text, chart, _valley(results, maps, up, across))


def _valley(
    results: Results, maps: Mapping[str, Mapping[tuple[float, ...], Configuration]], up: str, across: str
) -> list[list[str]]:
    """For each value upwards the best one across in each map, with its objective."""
    panels = sorted(maps)
    table = [[up, *(f"{options}: best {across}" if options else f"best {across}" for options in panels)]]
    for y in sorted({y for cells in maps.values() for _, y in cells}):
        row = [f"{y:g}"]
        for options in panels:
            line = [configuration for (_, other), configuration in maps[options].items() if other == y and configuration.n]
            known = [configuration for configuration in line if math.isfinite(configuration.mean("objective"))]
            row.append(_cell(results.best(known), across) if known else "")
        table.append(row)
    return table


def _cell(configuration: Configuration, key: str) -> str:
    objective = with_interval(configuration.mean("objective"), configuration.interval("objective"), configuration.n)
    return f"{configuration.values[key]}: {objective}"


def _is_grid(places: Sequence[tuple[float, ...]]) -> bool:
    numbers = [len(set(values)) for values in zip(*places, strict=True)]
    return min(numbers) >= FEWEST_VALUES and len(places) >= SHARE_OF_CELLS * math.prod(numbers)


def _axis(title: str, values: Sequence[float]) -> Axis:
    return Axis(title, sorted(set(values)))


def _results(results: Results, cells: Mapping[tuple[float, ...], Configuration]) -> Rows:
    rows: Rows = []
    for (x, y), configuration in cells.items():
        mean = configuration.mean("objective")
        value = 1 - mean if results.maximise else mean
        rows.append({"x": x, "y": y, "value": value, "n": configuration.n, "configuration": configuration.label})
    return rows


def error_by_epoch(results: Results) -> Iterator[Figure]:
    """The error on validation over a size and the epochs."""
    for key in swept_sizes(results):
        charts, time = [], time_axis(results.finished)
        for options, by_size in sorted(results.best_by_numbers(key).items()):
            rows: Rows = []
            for (size,), configuration in by_size.items():
                for epochs in configuration.curves(MOST_EPOCHS, logarithmic=True):
                    errors = [1 - epoch["val/acc"] for epoch in epochs]
                    row = {"x": epochs[0][time], "y": size, "value": sum(errors) / len(errors), "n": len(errors)}
                    rows.append(row | {"configuration": configuration.label})
            if _is_grid([(row["x"], row["y"]) for row in rows]):
                across, up = _axis(time, [row["x"] for row in rows]), _axis(key, [row["y"] for row in rows])
                charts.append(_cells_chart(options, across, up, rows))
        if not charts:
            continue
        text = (
            f"Colour is the error on validation (1 - accuracy), mean over seeds, after each {time} for each {key}: along the "
            "right edge what a size leads to, from left to right what training longer does. The ring is the lowest."
        )
        name = f"epochs-{key.replace('.', '-')}"
        yield framed(name, f"Epochs and {key}", text, alt.concat(*charts, columns=3).resolve_scale(color="shared"))


def _cells_chart(title: str, across: Axis, up: Axis, rows: Rows) -> Any:
    """The rows (`x`, `y`, `value`) as cells, with a ring on the lowest value."""
    x_edges, y_edges = across.edges(), up.edges()
    x_place, y_place = (dict(zip(axis.values, axis.places, strict=True)) for axis in (across, up))
    rows = [
        row
        | dict(zip(("left", "right"), x_edges[row["x"]], strict=True))
        | dict(zip(("bottom", "top"), y_edges[row["y"]], strict=True))
        for row in rows
    ]
    known = [row for row in rows if math.isfinite(row["value"])]
    unknown = [row for row in rows if not math.isfinite(row["value"])]
    tooltip = [number_tip("x", across.title, "~g"), number_tip("y", up.title, "~g"), number_tip("value", form=".4~g"),
               "n:Q", "configuration:N"]  # fmt: skip

    def cells(of: Rows, color: Any) -> Any:
        chart = alt.Chart(inline_data(of), width=WIDTH, height=HEIGHT, title=title).mark_rect()
        ends = {"x": across.channel(alt.X, "left"), "x2": "right", "y": up.channel(alt.Y, "bottom"), "y2": "top"}
        return chart.encode(**ends, color=color, tooltip=tooltip)

    layers = [cells(unknown, alt.value("#ccc"))] if unknown else []
    if not known:
        return alt.layer(*layers)
    layers.append(cells(known, _color([row["value"] for row in known])))
    best = min(known, key=lambda row: row["value"])
    ring = alt.Chart(inline_data([{"left": x_place[best["x"]], "bottom": y_place[best["y"]]}]))
    ring = ring.mark_point(shape="circle", size=70, color="black", strokeWidth=2)
    layers.append(ring.encode(x=across.channel(alt.X, "left"), y=up.channel(alt.Y, "bottom")))
    return alt.layer(*layers)


def _color(values: Sequence[float]) -> Any:
    """Bright where values are low; on a logarithmic scale, which tells good ones apart, where all are above 0.

    The worst quarter shares a colour: a loss that nearly diverged would leave none for the others.
    """
    low, high = min(values), sorted(values)[(3 * len(values)) // 4]
    if low > 0:
        ticks = [low * (high / low) ** (index / 4) for index in range(5)]
    else:
        ticks = [low + (high - low) * index / 4 for index in range(5)]
    scale = alt.Scale(
        scheme="viridis", reverse=True, type="log" if low > 0 else "linear", domain=[low, high], clamp=True
    )  # fmt: skip
    return alt.Color("value:Q", scale=scale, title=None, legend=alt.Legend(values=ticks, format=".2~r"))
