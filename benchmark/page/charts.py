"""The page's charts as Vega-Lite specifications. Rows are put in by the page; colours are its CSS variables by name.

`$a` and `$b` are the two methods that a reader compares, `$other` all the rest: one idea in all charts.
"""

from typing import Any

from benchmark import catalogue

VERSION = "6.4"  # of Vega-Lite
Spec = dict[str, Any]

WHO = {"field": "who", "type": "nominal", "legend": None,
       "scale": {"domain": ["a", "b", "other"], "range": ["$a", "$b", "$other"]}}  # fmt: skip
NAMED = {"condition": [{"test": f"datum.who == '{who}'", "value": f"${who}"} for who in "ab"], "value": "$soft"}
FRONT = {"condition": {"test": "datum.who != 'other'", "value": 1}, "value": 0.75}
PHASES = ("train", "dev", "test", "start and end", "sources' share")
PALETTE = ["$phase1", "$phase2", "$phase3", "$phase4", "$phase5"]


def script() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from vl-convert, without a network; kept: that takes seconds."""
    from importlib.metadata import version

    import vl_convert

    key = ["vega", version("vl-convert-python"), VERSION]
    return catalogue.remembered(key, lambda: vl_convert.javascript_bundle(None, vl_version=VERSION))


def number(field: str, title: str | None = None, **more: Any) -> Spec:
    return {"field": field, "type": "quantitative", "title": title} | more


def score(title: str = "mean x 100") -> Spec:
    return number("mean", title, scale={"zero": False, "nice": True, "padding": 12}, axis={"tickCount": 8})


def layered(*layers: Spec, **more: Any) -> Spec:
    return {"data": {"name": "rows"}, "width": "container", "layer": list(layers)} | more


def trade_off() -> Spec:
    """Quality against a cost: points with intervals, the frontier, controls across."""
    cost = {
        "scale": {"type": "log", "nice": False, "padding": 40},
        "axis": {"format": "~s", "tickCount": 5, "grid": False},
    }
    x = number("cost", "$costTitle", **cost)
    trained, control = "!datum.control && datum.cost > 0", "datum.control"
    keep, across = [{"filter": trained}], [{"filter": control}]
    points = {"x": x, "y": score()}
    shapes = {"domain": ["learns alone", "learns from sources first"], "range": ["circle", "diamond"]}
    shape = {
        "field": "kind",
        "type": "nominal",
        "title": None,
        "legend": {"orient": "top", "columns": 1},
        "scale": shapes,
    }
    ends = {"y": number("low", score()["title"]), "y2": {"field": "high"}}
    label = {"align": {"expr": "datum.left ? 'right' : 'left'"}, "dx": {"expr": "datum.left ? -9 : 9"}}
    return layered(
        {"transform": across, "mark": {"type": "rule", "strokeDash": [4, 4], "color": "$other"},
         "encoding": {"y": score(), "tooltip": {"field": "tip"}}},
        {"transform": across, "mark": {"type": "text", "align": "left", "dy": -6, "color": "$soft"},
         "encoding": {"x": {"value": 4}, "y": score(), "text": {"field": "method"}}},
        {"transform": [{"filter": trained}, {"filter": "datum.frontier"}],
         "mark": {"type": "line", "interpolate": "step-after", "color": "$line", "strokeWidth": 1.5},
         "encoding": points},
        {"transform": [*keep, {"filter": "isValid(datum.low)"}], "mark": {"type": "rule", "strokeWidth": 1.5},
         "encoding": {"x": x, **ends, "color": WHO, "opacity": FRONT}},
        {"transform": keep, "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
         "encoding": {**points, "color": WHO, "shape": shape, "opacity": FRONT, "tooltip": {"field": "tip"}}},
        {"transform": [*keep, {"filter": "datum.label"}], "mark": {"type": "text", "baseline": "middle", **label},
         "encoding": {"x": x, "y": number("place", score()["title"]), "text": {"field": "method"}, "color": NAMED}},
        height=460,
    )  # fmt: skip


def shot_curves() -> Spec:
    """Mean against the number of examples; the two methods with their intervals."""
    x = {"field": "shots", "type": "ordinal", "sort": None, "title": "examples per label", "axis": {"labelAngle": 0}}
    method = {"field": "method"}
    chosen = [{"filter": "datum.who != 'other'"}]
    wide = {"condition": {"test": "datum.who != 'other'", "value": 2.5}, "value": 1}
    return layered(
        {"transform": [*chosen, {"filter": "isValid(datum.low)"}], "mark": {"type": "area", "opacity": 0.15},
         "encoding": {"x": x, "y": number("low", "mean x 100", scale={"zero": False}), "y2": {"field": "high"},
                      "color": WHO, "detail": method}},
        {"mark": {"type": "line", "point": True}, "encoding": {
            "x": x, "y": score(), "color": WHO, "detail": method, "strokeWidth": wide, "opacity": FRONT,
            "tooltip": {"field": "tip"}}},
        {"transform": [{"filter": "datum.last && datum.who != 'other' && isValid(datum.mean)"}],
         "mark": {"type": "text", "align": "left", "dx": 8, "fontWeight": "bold"},
         "encoding": {"x": x, "y": score(), "text": method, "color": WHO}},
        height=340,
    )  # fmt: skip


def ranks() -> Spec:
    """Average ranks with half of the critical difference each way: two that do not overlap are told apart."""
    y = {"field": "method", "type": "nominal", "sort": None, "title": None}
    x = number(
        "rank", "average rank (1 is best)", scale={"zero": False, "nice": False, "padding": 10}, axis={"tickCount": 8}
    )
    return layered(
        {"mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.45, "strokeCap": "round"},
         "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": WHO}},
        {"mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
         "encoding": {"y": y, "x": x, "color": WHO, "tooltip": {"field": "tip"}}},
        height={"step": 22},
    )  # fmt: skip


def time() -> Spec:
    """Seconds of a cell by phase."""
    colours = {"domain": list(PHASES), "range": PALETTE}
    phase = {"field": "phase", "type": "nominal", "title": None, "scale": colours}
    phase |= {"sort": list(PHASES), "legend": {"orient": "top", "columns": 5}}
    return {
        "data": {"name": "rows"}, "width": "container", "height": {"step": 22}, "mark": {"type": "bar"},
        "encoding": {"y": {"field": "method", "type": "nominal", "sort": None, "title": None},
                     "x": number("seconds", "seconds per cell", stack="zero", axis={"tickCount": 6}), "color": phase,
                     "order": {"field": "place", "type": "quantitative"}, "tooltip": {"field": "tip"}},
    }  # fmt: skip


def learning(field: str, title: str, **scale: Any) -> Spec:
    """A line per cell over its steps."""
    x = number("step", "step", axis={"tickCount": 5, "format": "d"}, scale={"nice": False})
    y = number(field, title, scale={"zero": False} | scale)
    more = {"detail": {"field": "cell"}, "color": WHO, "tooltip": {"field": "tip"}}
    mark = {"type": "line", "strokeWidth": 1.6, "opacity": 0.85, "point": {"size": 14} if field == "dev" else False}
    return {"data": {"name": "rows"}, "width": "container", "height": 180, "mark": mark,
            "encoding": {"x": x, "y": y, **more}}  # fmt: skip


def every() -> dict[str, Spec]:
    return {
        "trade-off": trade_off(),
        "shots": shot_curves(),
        "ranks": ranks(),
        "time": time(),
        "loss": learning("loss", "training loss", type="symlog"),
        "dev": learning("dev", "dev score x 100"),
    }
