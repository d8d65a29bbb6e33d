"""Vega-Lite specifications of the page's charts. The page's scripts insert the data rows.

Values with `$` are replaced by the scripts: `$method-a`, `$method-b` and `$other` are the CSS colours of the two
compared methods and of all others, `$cost-title` is the title of the selected cost. The field `highlight` of a row is
`a`, `b` or `other`.
"""

from importlib.metadata import version
from typing import Any

from benchmark.system import disk_cache

VEGA_LITE_VERSION = "6.4"
ChartSpec = dict[str, Any]

COMPARED_COLOUR = {"field": "highlight", "type": "nominal", "legend": None,
       "scale": {"domain": ["a", "b", "other"], "range": ["$method-a", "$method-b", "$other"]}}  # fmt: skip
LABEL_COLOUR = {
    "condition": [{"test": f"datum.highlight == '{name}'", "value": f"$method-{name}"} for name in "ab"],
    "value": "$soft",
}
FOCUS_OPACITY = {"condition": {"test": "datum.highlight != 'other'", "value": 1}, "value": 0.75}
PHASES = ("train", "dev", "test", "start and end", "sources' share")
PHASE_COLOURS = ["$phase1", "$phase2", "$phase3", "$phase4", "$phase5"]


def load_vega_script() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, bundled by vl-convert. Cached: bundling takes seconds."""

    import vl_convert

    def bundle_scripts() -> str:
        return vl_convert.javascript_bundle(vl_version=VEGA_LITE_VERSION)  # type: ignore[call-arg]  # has a default

    return disk_cache.load_or_compute(["vega", version("vl-convert-python"), VEGA_LITE_VERSION], bundle_scripts)


def build_number_field(field: str, title: str | None = None, **options: Any) -> ChartSpec:
    """Build a quantitative encoding channel; `options` are further Vega-Lite properties."""
    return {"field": field, "type": "quantitative", "title": title} | options


def build_score_field(title: str = "mean x 100") -> ChartSpec:
    """Build the encoding channel of a mean score x 100, with an axis that need not start at zero."""
    return build_number_field("mean", title, scale={"zero": False, "nice": True, "padding": 12}, axis={"tickCount": 8})


def build_layered_chart(*layers: ChartSpec, **options: Any) -> ChartSpec:
    """Build a chart of layers over the data set `rows`, as wide as its container."""
    return {"data": {"name": "rows"}, "width": "container", "layer": list(layers)} | options


def build_trade_off_chart() -> ChartSpec:
    """Mean score against a cost: points with intervals, the Pareto frontier, controls as horizontal lines."""
    cost = {
        "scale": {"type": "log", "nice": False, "padding": 40},
        "axis": {"format": "~s", "tickCount": 5, "grid": False},
    }
    x = build_number_field("cost", "$cost-title", **cost)
    trained = [{"filter": "!datum.isControl && datum.cost > 0"}]
    controls = [{"filter": "datum.isControl"}]
    points = {"x": x, "y": build_score_field()}
    shapes = {"domain": ["single-task", "with source stages"], "range": ["circle", "diamond"]}
    shape = {
        "field": "kind",
        "type": "nominal",
        "title": None,
        "legend": {"orient": "top", "columns": 1},
        "scale": shapes,
    }
    ends = {"y": build_number_field("low", build_score_field()["title"]), "y2": {"field": "high"}}
    label = {"align": {"expr": "datum.isLabelLeft ? 'right' : 'left'"}, "dx": {"expr": "datum.isLabelLeft ? -9 : 9"}}
    return build_layered_chart(
        {"transform": controls, "mark": {"type": "rule", "strokeDash": [4, 4], "color": "$other"},
         "encoding": {"y": build_score_field(), "tooltip": {"field": "tooltip"}}},
        {"transform": controls, "mark": {"type": "text", "align": "left", "dy": -6, "color": "$soft"},
         "encoding": {"x": {"value": 4}, "y": build_score_field(), "text": {"field": "method"}}},
        {"transform": [*trained, {"filter": "datum.isOnFrontier"}],
         "mark": {"type": "line", "interpolate": "step-after", "color": "$line", "strokeWidth": 1.5},
         "encoding": points},
        {"transform": [*trained, {"filter": "isValid(datum.low)"}], "mark": {"type": "rule", "strokeWidth": 1.5},
         "encoding": {"x": x, **ends, "color": COMPARED_COLOUR, "opacity": FOCUS_OPACITY}},
        {"transform": trained, "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
         "encoding": {**points, "color": COMPARED_COLOUR, "shape": shape, "opacity": FOCUS_OPACITY,
                      "tooltip": {"field": "tooltip"}}},
        {"transform": [*trained, {"filter": "datum.hasLabel"}], "mark": {"type": "text", "baseline": "middle", **label},
         "encoding": {"x": x, "y": build_number_field("labelY", build_score_field()["title"]),
                      "text": {"field": "method"}, "color": LABEL_COLOUR}},
        height=460,
    )  # fmt: skip


def build_shot_curves_chart() -> ChartSpec:
    """Mean score against the number of shots; the two compared methods with their intervals."""
    x = {"field": "shots", "type": "ordinal", "sort": None, "title": "examples per label", "axis": {"labelAngle": 0}}
    method = {"field": "method"}
    compared = [{"filter": "datum.highlight != 'other'"}]
    stroke_width = {"condition": {"test": "datum.highlight != 'other'", "value": 2.5}, "value": 1}
    return build_layered_chart(
        {"transform": [*compared, {"filter": "isValid(datum.low)"}], "mark": {"type": "area", "opacity": 0.15},
         "encoding": {"x": x, "y": build_number_field("low", "mean x 100", scale={"zero": False}),
                      "y2": {"field": "high"}, "color": COMPARED_COLOUR, "detail": method}},
        {"mark": {"type": "line", "point": True}, "encoding": {
            "x": x, "y": build_score_field(), "color": COMPARED_COLOUR, "detail": method, "strokeWidth": stroke_width,
            "opacity": FOCUS_OPACITY, "tooltip": {"field": "tooltip"}}},
        {"transform": [{"filter": "datum.isLast && datum.highlight != 'other' && isValid(datum.mean)"}],
         "mark": {"type": "text", "align": "left", "dx": 8, "fontWeight": "bold"},
         "encoding": {"x": x, "y": build_score_field(), "text": method, "color": COMPARED_COLOUR}},
        height=340,
    )  # fmt: skip


def build_ranks_chart() -> ChartSpec:
    """Average ranks, ± half the critical difference: two methods differ significantly if their bars do not overlap."""
    y = {"field": "method", "type": "nominal", "sort": None, "title": None}
    x = build_number_field(
        "rank", "average rank (1 is best)", scale={"zero": False, "nice": False, "padding": 10}, axis={"tickCount": 8}
    )
    return build_layered_chart(
        {"mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.45, "strokeCap": "round"},
         "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": COMPARED_COLOUR}},
        {"mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
         "encoding": {"y": y, "x": x, "color": COMPARED_COLOUR, "tooltip": {"field": "tooltip"}}},
        height={"step": 22},
    )  # fmt: skip


def build_time_chart() -> ChartSpec:
    """Seconds per cell by phase, as stacked bars."""
    colours = {"domain": list(PHASES), "range": PHASE_COLOURS}
    phase = {"field": "phase", "type": "nominal", "title": None, "scale": colours,
             "sort": list(PHASES), "legend": {"orient": "top", "columns": 5}}  # fmt: skip
    return {
        "data": {"name": "rows"}, "width": "container", "height": {"step": 22}, "mark": {"type": "bar"},
        "encoding": {"y": {"field": "method", "type": "nominal", "sort": None, "title": None},
                     "x": build_number_field("seconds", "seconds per cell", stack="zero", axis={"tickCount": 6}),
                     "color": phase, "order": {"field": "phaseIndex", "type": "quantitative"},
                     "tooltip": {"field": "tooltip"}},
    }  # fmt: skip


def build_learning_curve_chart(field: str, title: str, **scale: Any) -> ChartSpec:
    """Loss or dev score against the training step, one line per cell."""
    x = build_number_field("step", "step", axis={"tickCount": 5, "format": "d"}, scale={"nice": False})
    y = build_number_field(field, title, scale={"zero": False} | scale)
    channels = {"detail": {"field": "cell"}, "color": COMPARED_COLOUR, "tooltip": {"field": "tooltip"}}
    mark = {"type": "line", "strokeWidth": 1.6, "opacity": 0.85, "point": {"size": 14} if field == "dev" else False}
    return {"data": {"name": "rows"}, "width": "container", "height": 180, "mark": mark,
            "encoding": {"x": x, "y": y, **channels}}  # fmt: skip


def build_all_charts() -> dict[str, ChartSpec]:
    """Build all charts of the page, by the name that the template uses."""
    return {
        "trade-off": build_trade_off_chart(),
        "shots": build_shot_curves_chart(),
        "ranks": build_ranks_chart(),
        "time": build_time_chart(),
        "loss": build_learning_curve_chart("loss", "training loss", type="symlog"),
        "dev": build_learning_curve_chart("dev", "dev score x 100"),
    }
