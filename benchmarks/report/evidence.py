"""Question: how good is each model, each part of SRP4CTR, and at which cost?

Results of other benchmarks → tables and plots in docs/evidence.md, between two comments;
the rest of the page stays as it is. The same results give the same bytes.

    make bench NAME=evidence
    python -m benchmarks evidence --results mine/results --page mine/evidence.md
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import RESULTS, ROOT, parser_of
from benchmarks.report import evidence_plots as plots
from benchmarks.report import evidence_tables as tables
from benchmarks.report.evidence_tables import (
    FROZEN,
    SIZED,
    Evidence,
    number,
    plain,
    read,
)
from srp4ctr.atomic_files import replace_text

PAGE = ROOT / "docs" / "evidence.md"
BEGIN, END = "<!-- evidence: begin -->", "<!-- evidence: end -->"
FOLDER = "evidence"  # of the plots, next to the page
NOTHING = (
    "There are no results yet: `make bench NAME=click_quality` and "
    "`make bench NAME=pretraining` measure them, `make bench NAME=evidence` writes this "
    "part."
)
READING = """\
## How to read the tables

`make bench NAME=evidence` writes this part from the results of
`make bench NAME=click_quality` and `make bench NAME=pretraining`; please do not edit it
here.

| column | meaning |
| --- | --- |
| ± | standard error of the mean over seeds |
| − SRP4CTR | mean difference from SRP4CTR at equal seeds; positive is higher than SRP4CTR |
| gAUC | mean AUC within a request |
| NE | log loss divided by that of the mean click rate; 1 is no better than that rate |
| p / y | predicted clicks divided by clicks; 1 is calibrated |
| sampling error | standard error over test sets of this size; more seeds do not reduce it |
| CPU s | CPU seconds of training, pre-training included |
| MFLOPs, 1 and 100 | cost of a request with 1 and with 100 candidates |

Another test set would move all models mostly together. Errors of differences are over seeds
only.

The rows are from two states of the code:

- *From 2026-11-30 on*: KuaiRand-Pure, ML-1M (CoLLM) and EB-NeRD with attributes, except
  for the model of ids only on KuaiRand-Pure.
- *Older*: all other rows of SRP4CTR, with 15 to 16 MFLOPs for one candidate. There the
  queries read the encoder's last states, pre-training hides no attributes of visible items,
  and the match with the predicted item starts in the click's logit with weight 1.

KuaiRand's users have attributes, so SRP4CTR reads products of fields there (80 MFLOPs for
100 candidates); the model of ids only does not."""
NOTES = {
    SIZED: """\
*Slate size known*: every slate of EB-NeRD has a click, so the number of items says much
about each of them. In these tables all models know it. *By one score*: the model has one
score for probability and order instead of [two](model.md#two-scores). So have all models of
the frozen features and of MovieLens-100K; there differences are from SRP4CTR by one score,
too.""",
    FROZEN: """\
*Features frozen*: counters and histories stop at the training boundary, as in an offline
table. In all other tables they move with the stream.""",
    "KuaiRand": """\
*KuaiRand-Pure*: a feed with one video per request. AUC and log loss count there; gAUC is of
the few requests with two videos. Recipes are chosen on validation days, but ten states of
the code were run on the test week. SRP4CTR was below BST in the first run and was changed
since; BST was not. Seeds were added twice. Two more were run when three had shown no
difference. With a tenth of the impressions, five more of SRP4CTR and PNN were run when five
had shown no difference beyond the margin.

With a tenth of the impressions all networks train at twice the common rate, although it
does not suit all of them. Other recipes give these AUCs:

| model, a tenth of the impressions | AUC |
| --- | ---: |
| DIN, common rate | 0.7414 |
| CAN, common rate | 0.7323 |
| PNN, batches of 32 (0.0014 ± 0.0004 below SRP4CTR, ten seeds) | 0.7464 |
| BST, batches of 32, common rate | 0.7432 |""",
}
CAPTIONS = {
    "quality_by_cost": """\
*Quality and cost.* The paper counts *efficiency-FLOPs* of one candidate and
*inference-FLOPs* of a request with 100 candidates, which share the history. The plot shows
the second; the tables have both. The arrow ends at the cost of SRP4CTR if it encoded the
history once per candidate. Dashed lines are trees, whose cost is not in FLOPs. Bars and
bands are standard errors over seeds.""",
    "learning_curve": """\
*Few labels.* Fine-tuning gets a share of the slates; pre-training reads the whole log. On
KuaiRand the log has users' actions on nearly every impression, so the feedback stage knows
nearly every label. Bars are standard errors over seeds.""",
    "ablations": """\
*Value of each part.* The plot shows a variant's gAUC (in a feed its AUC) minus SRP4CTR's at
equal seeds. Left of the line the variant is worse. Bars are standard errors.""",
}
ABLATIONS = "Ablations, by SRP4CTR's recipe:"
LAST_ITEM = """\
Each model ranks a user's last item among 99 others, by S3-Rec's protocol. `fg-bert` is the
encoder without a head, `srp4ctr-none` SRP4CTR without pre-training."""
PUBLISHED = """\
 *Published* figures are from S3-Rec's paper, on the same files."""


def main() -> None:
    """Write the plots and the page, then print one JSON object of what was written."""
    parser = parser_of(__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="a folder")
    parser.add_argument("--page", type=Path, default=PAGE, help="with the two comments")
    options = parser.parse_args()
    try:
        print(json.dumps(write(options.results, options.page)))
    except ValueError as error:
        raise SystemExit(str(error)) from error


def write(results: Path, page: Path) -> dict[str, object]:
    """Write the evidence of ``results`` into ``page``, between its two comments.

    Returns the names of the written files and the number of rows. Raises ``ValueError`` if
    the page lacks the comments.
    """
    clicks = read(results / "click_quality.json")
    pretraining = read(results / "pretraining.json")
    before, rest = _around(page)
    drawn = _draw(clicks, pretraining, page.parent / FOLDER)
    body = section(clicks, pretraining, drawn)
    replace_text(page, f"{before}{BEGIN}\n{body}\n{END}{rest}")
    files = [page.name, *(f"{FOLDER}/{name}.svg" for name in drawn)]
    print(f"wrote {', '.join(files)} next to {page}", file=sys.stderr)
    return {"files": files, "rows": sum(len(of.rows) for of in [*clicks, *pretraining])}


def section(
    clicks: Sequence[Evidence], pretraining: Sequence[Evidence], drawn: Sequence[str]
) -> str:
    """Return the text between the comments."""
    if not clicks and not pretraining:
        return NOTHING
    parts = [READING]
    parts += [note for kind, note in NOTES.items() if any(kind in c.source for c in clicks)]
    parts += ["## Plots"] if drawn else []
    for name in drawn:
        title = name.replace("_", " ")
        parts += [f"![{title}]({FOLDER}/{name}.svg)", CAPTIONS[name]]
    parts.append("## Tables")
    for of in clicks:
        parts += _of_clicks(of)
    for of in pretraining:
        text = LAST_ITEM + (PUBLISHED if of.source in tables.PUBLISHED else "")
        parts += [f"### Pre-training: {of.title}", text, tables.last_item(of)]
        if of.curves:
            parts += ["By share of the slates:", tables.last_item_shares(of)]
    return "\n\n".join(parts)


def _of_clicks(of: Evidence) -> list[str]:
    parts = [f"### Clicks: {of.title}", _test_set(of)]
    if of.models:
        parts += [tables.quality(of), "AUC by kind of impression:", tables.kinds(of)]
    if of.ablations:
        parts += [ABLATIONS, tables.ablations(of)]
    if of.curves:
        parts += ["By share of the click labels:", tables.shares(of)]
    return parts


def _test_set(of: Evidence) -> str:
    """Return the size of the test set, and the sampling error of its metric."""
    row = of.reference or of.rows[0]
    impressions, clicks = number(row, "impressions"), number(row, "clicks")
    name, margin = "gAUC", number(row, "gauc_sampling_error")
    if of.metric == "auc" and impressions and clicks:
        name = "AUC"
        margin = auc_error(row["auc"], int(clicks), int(impressions - clicks))
    counted = [] if impressions is None else [f"{impressions:,.0f} impressions"]
    counted += [] if clicks is None else [f"{clicks:,.0f} clicks"]
    text = f"Test set: {', '.join(counted) or 'not counted'}."
    if margin is None:
        return text
    return f"{text} Sampling error of {name}: {plain(margin)}."


def auc_error(auc: float, positives: int, negatives: int) -> float:
    """Return the standard error of an AUC from its value and counts (Hanley, McNeil 1982).

    It takes impressions as independent.
    """
    both_above, both_below = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = (
        auc * (1 - auc)
        + (positives - 1) * (both_above - auc * auc)
        + (negatives - 1) * (both_below - auc * auc)
    ) / (positives * negatives)
    return math.sqrt(max(0.0, variance))


def _around(page: Path) -> tuple[str, str]:
    """Return the text before and after the evidence in ``page``."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(
            f"{page} has no place for the evidence: add the lines {BEGIN} and {END}"
        )
    return before, after


def _draw(
    clicks: Sequence[Evidence], pretraining: Sequence[Evidence], folder: Path
) -> list[str]:
    """Write each plot that has data and remove the others; return the written names.

    A data set is plotted only if SRP4CTR ran on it with all labels.
    """
    clicks = [of for of in clicks if of.reference]
    drawn = {
        "quality_by_cost": plots.quality_by_cost(clicks),
        "learning_curve": plots.learning_curve([*clicks, *pretraining]),
        "ablations": plots.ablation_dots(clicks),
    }
    for name, text in drawn.items():
        file = folder / f"{name}.svg"
        if text is None:
            file.unlink(missing_ok=True)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            replace_text(file, text)
    return [name for name, text in drawn.items() if text is not None]


if __name__ == "__main__":
    main()
