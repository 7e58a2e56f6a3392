"""Charts of scores, drawn by Vega-Lite: on a page by its own viewer, and as SVG or PNG files.

The functions build Altair charts. A page gives them its colours; files have light colours.
"""

import functools
import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agentzoo.types import ConfigurationError

Rows = Sequence[Mapping[str, Any]]

# Colours of similar lightness, which can be told apart on white and on black.
PALETTE = (
    *("#2f76c4", "#d9660b", "#22955a", "#b04ec2", "#cf3f4f"),
    *("#0f94a3", "#9a7219", "#6d63d8", "#d2568f", "#73808c"),
)
_HOVER = "hover"  # name of the points that appear below the pointer
SUFFIXES = (".svg", ".png")
_FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
_LIGHT = {"ink": "#1c2126", "soft": "#5a646e", "line": "#dfe3e7", "paper": "#ffffff"}


class Axis(NamedTuple):
    """An axis of a chart.

    Attributes:
      field: the field of the rows.
      title: the title.
      format: the format of its numbers in D3's notation.
      zero: whether it begins at zero, if it is the horizontal axis.
    """

    field: str
    title: str
    format: str = ",.4~g"
    zero: bool = False


class Chart(NamedTuple):
    """A chart, apart from its data, which Altair would check for longer than all else takes.

    Attributes:
      altair: the chart of Altair, without data.
      rows: the data.
    """

    altair: Any
    rows: Rows


STEPS = Axis("step", "environment steps", "~s", zero=True)
SECONDS = Axis("seconds", "training time in seconds", ",.3~g", zero=True)


def lines(rows: Rows, labels: Sequence[str], x: Axis, y: Axis, height: int = 300) -> Chart:
    """Return a chart with a line per label, and with a band where rows have `low` and `high`.

    Rows with a field `part` are apart from that line. Each part is a thin line in dashes.

    Args:
      rows: one point each, with `label` and the fields of the axes, and with the name of the part
        that it belongs to, if it is apart.
      labels: the labels in the order of their colours.
      x: the horizontal axis.
      y: the vertical axis.
      height: height in pixels.
    """
    alt = _altair()
    pick = alt.selection_point(name="pick", fields=["label"], bind="legend")
    near = alt.selection_point(
        name="near", nearest=True, on="pointerover", clear="pointerout", empty=False
    )
    color = _color(alt, labels)
    horizontal = alt.X(
        f"{x.field}:Q",
        title=x.title,
        axis=alt.Axis(
            format=x.format,
            grid=False,
            tickCount=_ticks(alt),
            labelExpr="datum.value === 0 ? '0' : datum.label",  # not 0k
        ),
        scale=alt.Scale(nice=False, zero=x.zero),
    )
    vertical = alt.Y(f"{y.field}:Q", title=y.title, scale=alt.Scale(zero=False))
    base = alt.Chart().encode(x=horizontal, color=color)
    has_band = any(row.get("low") is not None for row in rows)
    tooltip = [alt.Tooltip("label:N", title="algorithm")] + [
        alt.Tooltip(f"{axis.field}:Q", title=axis.title, format=form)
        for axis, form in ((x, ",.6~g"), (y, y.format))
    ]
    if has_band:
        tooltip += [
            alt.Tooltip(f"{end}:Q", title=f"95 % interval, {text}", format=y.format)
            for end, text in (("low", "from"), ("high", "to"))
        ]
    band = base.mark_area().encode(
        y=alt.Y("low:Q", title=y.title, scale=alt.Scale(zero=False)),
        y2="high:Q",
        opacity=alt.when(pick).then(alt.value(0.16)).otherwise(alt.value(0.02)),
    )
    line = base.mark_line(strokeWidth=2).encode(
        y=vertical, opacity=alt.when(pick).then(alt.value(1)).otherwise(alt.value(0.12))
    )
    points = (
        base.mark_point(filled=True, size=70)
        .properties(name=_HOVER)
        .encode(
            y=vertical,
            tooltip=tooltip,
            opacity=alt.when(near).then(alt.value(1)).otherwise(alt.value(0)),
        )
    )
    layers = [*([band] if has_band else []), line.add_params(pick), points.add_params(near)]
    if any("part" in row for row in rows):
        layers = [layer.transform_filter("!isValid(datum.part)") for layer in layers]
        layers[:0] = _parts(alt, base, vertical, tooltip, pick)
    return Chart(alt.layer(*layers, data=alt.NamedData("rows")).properties(height=height), rows)


def _parts(alt: Any, base: Any, vertical: Any, tooltip: Sequence[Any], pick: Any) -> list[Any]:
    """Return the layers of the rows with a part: thin dashed lines, with a point for each row."""
    opacity = alt.when(pick).then(alt.value(0.75)).otherwise(alt.value(0.08))
    of_parts = base.transform_filter("isValid(datum.part)").encode(
        y=vertical, detail="part:N", opacity=opacity
    )
    names = [alt.Tooltip("part:N", title="run"), *tooltip[:3]]
    return [
        of_parts.mark_line(strokeWidth=1.25, strokeDash=[4, 3]),
        of_parts.mark_point(size=14, strokeWidth=1.25).encode(tooltip=names),
    ]


def intervals(
    rows: Rows,
    title: str,
    labels: Sequence[str] | None = None,
    reference: float | None = None,
    domain: tuple[float, float] | None = None,
) -> Chart:
    """Return a chart with a point and its interval for each row, below each other.

    Args:
      rows: `name`, `value`, `low` and `high` each, and `label` where there are labels.
      title: title of the horizontal axis.
      labels: the labels in the order of their colours, or None for one colour.
      reference: where to draw a vertical line.
      domain: the ends of the horizontal axis.
    """
    alt = _altair()
    scale = alt.Scale(zero=False) if domain is None else alt.Scale(domain=domain)
    axis = alt.Axis(tickCount=_ticks(alt))
    names = [row["name"] for row in rows]
    color = alt.value(PALETTE[0]) if labels is None else _color(alt, labels, legend=False)
    tooltip = [
        alt.Tooltip("name:N", title=" "),
        alt.Tooltip("value:Q", title=title, format=".3~f"),
        alt.Tooltip("low:Q", title="95 % interval, from", format=".3~f"),
        alt.Tooltip("high:Q", title="95 % interval, to", format=".3~f"),
    ]
    base = alt.Chart().encode(
        y=alt.Y("name:N", sort=names, title=None),
        color=color,
        tooltip=tooltip,
    )
    bar = base.mark_rule(strokeWidth=7, opacity=0.35).encode(
        x=alt.X("low:Q", title=title, scale=scale, axis=axis), x2="high:Q"
    )
    point = base.mark_point(filled=True, size=90, opacity=1).encode(
        x=alt.X("value:Q", title=title, scale=scale, axis=axis)
    )
    layers = [bar, point]
    if reference is not None:
        line = alt.Chart(alt.Data(values=[{"x": reference}])).mark_rule(strokeDash=[4, 4])
        layers.insert(0, line.encode(x="x:Q", color=alt.value("#8a939c")))
    return Chart(
        alt.layer(*layers, data=alt.NamedData("rows")).properties(height=max(60, 26 * len(rows))),
        rows,
    )


def to_spec(chart: Chart, width: int | str = "container", **config: Any) -> dict[str, Any]:
    """Return a chart as Vega-Lite JSON.

    Args:
      chart: the chart.
      width: its width; "container" fills the place of the chart on a page.
      **config: colours and fonts, if a page does not set them.
    """
    spec = chart.altair.properties(width=width).configure(**config).to_dict()
    return {
        **spec,
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "config": config,  # without the defaults of Altair, which would precede those of a page
        "data": {"values": [dict(row) for row in chart.rows]},
    }


def save(chart: Chart, path: Path, width: int = 640) -> None:
    """Write a chart as SVG or PNG, by the suffix of the path.

    Args:
      chart: the chart.
      path: the file.
      width: width in pixels of the plot without its axis. A PNG has twice the resolution.

    Raises:
      ConfigurationError: if the suffix is another one, or a package is not installed.
      OSError: if the file cannot be written.
    """
    converter = _import("vl_convert")
    spec = to_spec(chart, width, **_config())
    # Nothing hovers over a file, and the points would be most of it.
    spec["layer"] = [layer for layer in spec["layer"] if layer.get("name") != _HOVER]
    spec["params"] = [one for one in spec.get("params", []) if _HOVER not in one.get("views", [])]
    if path.suffix == ".svg":
        data = converter.vegalite_to_svg(spec, vl_version=_version()).encode()
    elif path.suffix == ".png":
        data = converter.vegalite_to_png(spec, vl_version=_version(), scale=2)
    else:
        raise ConfigurationError(
            f"{path} cannot be drawn, because charts are SVG or PNG files. Choose a name that ends "
            f"in {' or '.join(SUFFIXES)}."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@functools.cache
def viewer() -> str:
    """Return the JavaScript that shows charts on a page: Vega-Lite and what it needs."""
    return _import("vl_convert").javascript_bundle(vl_version=_version())


def _version() -> str | None:
    """Return the version of Vega-Lite to use, or None for the newest one.

    In 6.4, the text of what is nearest to the pointer is undefined.
    """
    return "6.1" if "6.1" in _import("vl_convert").get_vegalite_versions() else None


def thin(rows: Iterable[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """Return at most so many rows, evenly spaced, with the first and the last one."""
    rows = list(rows)
    if len(rows) <= most:
        return rows
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def _color(alt: Any, labels: Sequence[str], legend: bool = True) -> Any:
    colors = [PALETTE[i % len(PALETTE)] for i in range(len(labels))]
    style = alt.Legend(
        title=None,
        orient="top",
        symbolType="stroke",
        symbolOpacity=1,
        symbolStrokeWidth=3,
    )
    return alt.Color(
        "label:N",
        scale=alt.Scale(domain=list(labels), range=colors),
        legend=style if legend else None,
    )


def _ticks(alt: Any) -> Any:
    """About as many ticks as have room on a horizontal axis."""
    return alt.ExprRef("max(2, width / 90)")


def _config() -> dict[str, Any]:
    """The colours and the fonts of charts in files."""
    text = {"labelColor": _LIGHT["soft"], "titleColor": _LIGHT["ink"], "titleFontWeight": "normal"}
    return {
        "background": _LIGHT["paper"],
        "font": _FONT,
        "axis": {**text, "gridColor": _LIGHT["line"], "domainColor": _LIGHT["soft"]},
        "axisY": {"labelLimit": 260},
        "legend": {"labelColor": _LIGHT["ink"], "labelFontSize": 12, "columns": 4},
        "view": {"stroke": None},
    }


def _altair() -> Any:
    return _import("altair")


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            f"Charts need {name}, which is not installed. Run: pip install 'agentzoo[report]'"
        ) from error
