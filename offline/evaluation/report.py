"""The report of an evaluation: metrics.json as one page that fetches nothing."""

from __future__ import annotations

import math
from pathlib import Path

from jinja2 import UndefinedError

from models.errors import SettingsError
from offline.evaluation.staleness import GAPS
from offline.evaluation.verdict import HEADLINES, METRIC_NAMES, headline, state
from offline.pages.charts import Json, curve, dots, lines
from offline.pages.figures import count, day, plain, signed
from offline.pages.page import finite, render_page
from offline.ranking.examples import PROTOCOLS

SLICES = {
    "all": "All",
    "new_users": "New users",
    "new_tracks": "New tracks",
    "no_history": "No history",
    "untied": "At a moment of their own",
    "repeats": "Repeats",
}
STALENESS = {
    "all": "all users",
    "with_listens": "with listens in the gap",
    "without_listens": "without listens in the gap",
}


def write_report(metrics: Json, path: Path) -> None:
    """Write the page of `metrics`, as metrics.json holds them, to `path`.

    Raises:
        SettingsError: the metrics lack something that every evaluation has.
    """
    path.write_text(render(metrics), encoding="utf-8")


def render(metrics: Json) -> str:
    """The page as HTML; staleness, drift, training, config, floor_settings and versions are left out where they lack.

    Raises:
        SettingsError: the metrics lack something that every evaluation has.
    """
    metrics = finite(metrics)
    try:
        matches = _matches(metrics)
        return render_page(
            "offline.evaluation",
            metrics=metrics,
            headline=headline(metrics["against_best_floor"]),
            matches=matches,
            charts=_charts(metrics),
            tables=_tables(metrics),
            differences=_differences(matches),
            staleness=_staleness(metrics),
            drift=_drift(metrics),
            training=_training(metrics),
            metric_names=METRIC_NAMES,
        )
    except (KeyError, UndefinedError) as error:
        raise SettingsError(f"the metrics are not whole ({error}); let this version's evaluate make them") from error


def _matches(metrics: Json) -> list[Json]:
    """Each model against the best floor, for each protocol and headline metric."""
    return [
        {
            "protocol": protocol.capitalize(),
            "metric": METRIC_NAMES[metric],
            "rows": [
                {"model": model, **by_protocol[protocol][metric], "state": state(by_protocol[protocol][metric])}
                for model, by_protocol in metrics["against_best_floor"].items()
            ],
        }
        for protocol in PROTOCOLS
        for metric in HEADLINES
    ]


def _systems(metrics: Json) -> list[tuple[str, str, Json]]:
    """Kind, name and figures by protocol of each model and each floor."""
    return [(kind, name, figures) for kind in ("model", "floor") for name, figures in metrics[f"{kind}s"].items()]


def _charts(metrics: Json) -> Json:
    """Of each protocol a chart for each headline metric: what is best stands first, of equals the floor."""
    charts: Json = {}
    for protocol in PROTOCOLS:
        charts[protocol] = []
        for metric in HEADLINES:
            rows = [
                {"name": name, "kind": kind, **figures[protocol]["all"][metric]}
                for kind, name, figures in _systems(metrics)
            ]
            rows.sort(
                key=lambda row: (-math.inf if row["value"] is None else row["value"], row["kind"] == "floor"),
                reverse=True,
            )
            floors = [row["value"] for row in rows if row["kind"] == "floor" and row["value"] is not None]
            bar = max(floors, default=None)
            title = f"{METRIC_NAMES[metric]}, n = {count(rows[0]['n'])}"
            charts[protocol].append(dots(title, rows, bar=bar, write=plain))
    return charts


def _differences(matches: list[Json]) -> list[Json]:
    """For each protocol and headline metric a chart of how far the models are ahead of the best floor."""
    return [
        dots(
            f"{match['protocol']}, {match['metric']}",
            [
                {
                    "name": f"{row['model']} − {row['floor']}",
                    "kind": row["state"],
                    "value": row["difference"],
                    "low": row["low"],
                    "high": row["high"],
                }
                for row in match["rows"]
            ],
            bar=0.0,
            write=signed,
        )
        for match in matches
    ]


def _staleness(metrics: Json) -> list[Json]:
    """Of each model a chart and a table: recall with embeddings frozen for longer and longer."""
    sections: list[Json] = []
    for model, of_gap in metrics.get("staleness", {}).items():
        gaps = sorted(of_gap, key=int)
        series = [
            {
                "name": name,
                "style": group,
                "points": [
                    {"x": (index + 0.5) / len(gaps) + shift, **of_gap[gap][group]} for index, gap in enumerate(gaps)
                ],
            }
            for shift, (group, name) in zip((0.0, -0.02, 0.02), STALENESS.items(), strict=True)
        ]
        labels = [GAPS.get(int(gap), f"{int(gap) / 3_600_000:g} h") for gap in gaps]
        places = [((index + 0.5) / len(gaps), label) for index, label in enumerate(labels)]
        rows = [(label, [of_gap[gap][group] for group in STALENESS]) for gap, label in zip(gaps, labels, strict=True)]
        chart = lines(f"{model}: Recall@10 by age of the embedding", series, x_ticks=places, mark=None, y=[0.0])
        sections.append({"model": model, "chart": chart, "rows": rows, "columns": list(STALENESS.values())})
    return sections


def _drift(metrics: Json) -> list[Json]:
    """Of each model, how its figures move over the time of the test, beside the floor that is best in all of it."""
    found, sections = metrics.get("drift"), []
    if not found:
        return []
    for model in metrics["models"]:
        days = [day(part["from_ms"]) for part in found["parts"]]
        until_ms = found["trained_until_ms"][model]
        section: Json = {"model": model, "trained_until": until_ms and day(until_ms), "charts": []}
        for metric in HEADLINES:
            floor = metrics["against_best_floor"][model]["discovery"][metric]["floor"]
            series = [
                {
                    "name": name,
                    "style": style,
                    "points": [
                        {"x": (index + 0.5) / len(days) + shift, **of_part}
                        for index, of_part in enumerate(found["figures"][name][metric])
                    ],
                }
                for name, style, shift in ((model, "model", -0.01), (floor, "floor", 0.01))
            ]
            places = [((index + 0.5) / len(days), label) for index, label in enumerate(days)]
            title = f"{model}: {METRIC_NAMES[metric]}, discovery"
            section["charts"].append(lines(title, series, x_ticks=places, mark=None, y=[0.0]))
        sections.append(section)
    return sections


def _training(metrics: Json) -> list[Json]:
    """Of each model the curves of its training, where it kept them."""
    sections: list[Json] = []
    for model, run in metrics.get("training", {}).items():
        course = run.get("course", [])
        charts = [
            curve(f"{model}: {title}", [(point["step"], point[key]) for point in course], chosen=run.get("best_step"))
            for key, title in (("loss", "loss"), ("valid_ndcg_at_10", "NDCG@10 on validation"))
            if course
        ]
        sections.append({"model": model, "charts": charts, "run": run, "steps": course[-1]["step"] if course else None})
    return sections


def _tables(metrics: Json) -> list[Json]:
    """Of each protocol its slices, of each slice what every system reached."""
    systems = _systems(metrics)
    tables: list[Json] = []
    for protocol in PROTOCOLS:
        slices = [name for name in SLICES if all(name in figures[protocol] for _, _, figures in systems)]
        groups = [
            _group(SLICES[name], [(kind, who, figures[protocol][name]) for kind, who, figures in systems])
            for name in slices
        ]
        if stood := metrics["as_it_stood"]:
            leaves = [(kind, who, figures[protocol]["all"]) for kind, who, figures in _systems(stood)]
            groups.insert(1, _group("All, with the history as it stood", leaves))
        tables.append({"protocol": protocol, "title": protocol.capitalize(), "groups": groups})
    return tables


def _group(title: str, systems: list[tuple[str, str, Json]]) -> Json:
    def best(metric: str) -> float:
        values = [leaves[metric]["value"] for _, _, leaves in systems if metric in leaves]
        return max((value for value in values if value), default=math.inf)  # nought is nobody's best

    tops = {metric: best(metric) for metric in METRIC_NAMES}
    rows = [
        (kind, name, [(leaves.get(metric), metric in leaves and leaves[metric]["value"] == tops[metric])
                      for metric in METRIC_NAMES])
        for kind, name, leaves in systems
    ]  # fmt: skip
    return {"title": title, "n": systems[0][2]["recall_at_10"]["n"] if systems else 0, "rows": rows}
