"""Plots of the report as SVG with the page's colors, so that they follow light and dark."""

import html
import io
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from statistics import quantiles
from typing import Any
from urllib.parse import quote, unquote

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The plots are drawn in these colors, which are then replaced by the variables of the page.
_INK, _QUIET, _LINE, _BAR = "#010203", "#040506", "#070809", "#0a0b0c"
_VARIABLES = {_INK: "--ink", _QUIET: "--quiet", _LINE: "--line", _BAR: "--accent"}
_HOVER = "hover:"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _QUIET,
    "axes.edgecolor": _LINE,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _QUIET,
    "ytick.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def bars(name: str, counts: Sequence[tuple[str, float]], unit: str) -> str:
    """Draw horizontal bars, the first on top, with the value at the end of each."""
    labels = [label for label, _ in counts]
    values = [value for _, value in counts]

    def draw(axes: Axes) -> None:
        drawn = axes.barh(range(len(values)), values, color=_BAR, height=0.62)
        for (label, value), bar in zip(counts, drawn, strict=True):
            bar.set_gid(_hover(f"{label}: {value:,.4g}"))
        axes.bar_label(drawn, [f"{value:,.4g}" for value in values], padding=4, color=_QUIET)
        axes.set_yticks(range(len(values)), labels)
        axes.invert_yaxis()
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_xticks([])
        axes.set_xlim(0, max(values) * 1.15)
        axes.set_xlabel(unit)

    return _svg(name, (4.6, 0.55 + 0.27 * len(values)), draw)


def histogram(name: str, values: Sequence[float], unit: str, *, whole: bool = False) -> str:
    """Draw a histogram of `values`; `whole`: with one bar per whole number."""

    def draw(axes: Axes) -> None:
        edges: Sequence[float] | int = 24
        if whole:
            edges = [value - 0.5 for value in range(int(min(values)), int(max(values)) + 2)]
        found, places, _ = axes.hist(values, bins=edges, color=_BAR, rwidth=0.9)
        spans = itertools.pairwise(places)
        for count, (low, high), bar in zip(found, spans, axes.patches, strict=True):
            span = f"{(low + high) / 2:.0f}" if whole else f"{low:.3g} to {high:.3g}"
            bar.set_gid(_hover(f"{unit}: {span}; {count:,.0f}"))
        axes.set(xlabel=unit, ylabel="count")
        axes.tick_params(labelcolor=_QUIET)
        axes.locator_params(axis="y", integer=True, nbins=5)
        if whole:
            axes.locator_params(axis="x", integer=True)

    return _svg(name, (4.6, 2.3), draw)


def boxes(name: str, groups: Mapping[str, Sequence[float]], unit: str) -> str:
    """Draw box plots with median, quartiles, 5 % and 95 %, without outliers."""

    def draw(axes: Axes) -> None:
        line = {"color": _INK, "linewidth": 1}
        drawn = axes.boxplot(
            list(groups.values()),
            orientation="horizontal",
            whis=(5, 95),
            showfliers=False,
            widths=0.55,
            patch_artist=True,
            boxprops={"facecolor": _BAR, "edgecolor": "none"},
            medianprops={"color": _INK, "linewidth": 2},
            whiskerprops=line,
            capprops=line,
        )
        for (name, values), box in zip(groups.items(), drawn["boxes"], strict=True):
            low, middle, high = quantiles(values, n=4) if len(values) > 1 else [*values] * 3
            box.set_gid(_hover(f"{name}: median {middle:.2f}, quartiles {low:.2f} and {high:.2f}"))
        axes.set_yticks(range(1, len(groups) + 1), list(groups))
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel(unit)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)

    return _svg(name, (6.4, 0.7 + 0.3 * len(groups)), draw)


def _hover(text: str) -> str:
    """Return the id that makes `text` the tooltip of an element."""
    return _HOVER + quote(text)


def _svg(name: str, size: tuple[float, float], draw: Callable[[Axes], None]) -> str:
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # The id of an element that was marked with `_hover` is its tooltip.
    text = re.sub(
        rf'<g id="{_HOVER}([^"]*)">',
        lambda found: f"<g><title>{html.escape(unquote(found[1]))}</title>",
        text,
    )
    # Ids of other groups would occur once per plot in the page. Only definitions are referred to.
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r"font: ([\d.]+)px[^;\"]*", r"font-size: \1px", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    return text
