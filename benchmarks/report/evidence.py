"""Question: what do all results together say, on a page?

Results that other benchmarks left → tables and plots in docs/model.md, between two
comments; the rest of the page stays as it is. The same results give the same bytes.

    make bench NAME=evidence
    python -m benchmarks evidence --results mine/results --page mine/model.md
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

PAGE = ROOT / "docs" / "model.md"
BEGIN, END = "<!-- evidence: begin -->", "<!-- evidence: end -->"
FOLDER = "evidence"  # of the plots, next to the page
NOTHING = (
    "No results are there yet: `make bench NAME=click_quality` and "
    "`make bench NAME=pretraining` make them, `make bench NAME=evidence` this section."
)
READING = """\
Written by `make bench NAME=evidence` from what `make bench NAME=click_quality` and
`make bench NAME=pretraining` measured; not to be edited here.

± is the standard error of the mean over seeds. *− SRP4CTR* is the mean difference from
SRP4CTR at equal seeds, which leaves out what both share. *gAUC* is the mean AUC within a
request; *NE* the log loss, where 1 is knowing only the click rate; *p / y* predicted clicks
over clicks; *CPU s* training with pre-training; *MFLOPs* the cost of a request with 1
candidate and with 100. Where SRP4CTR takes 15 to 16 of them for one candidate it was
measured before 2026-11-30: its queries then read the encoder's last states, and
pre-training hid no attributes of items whose ids are shown. On that day, too, the match
with the predicted item left the click's logit at the start of training: the rows of CoLLM,
of EB-NeRD with attributes and of KuaiRand are of after it, but for the model of ids only;
the others are of before. KuaiRand's users have attributes, so that its SRP4CTR reads
products of fields there (80 MFLOPs for 100 candidates); the model of ids only does not."""
NOTES = {
    SIZED: """\
*Slate size known*: EB-NeRD's slates all hold a click, so that their size says much;
here all models know it. *By one score*: measured before models had [two](#two-scores), as
were the frozen features and MovieLens; differences are from SRP4CTR of then.""",
    FROZEN: """\
*Features frozen*: counters and histories do not change from the boundary on, as an offline
table's would; elsewhere they move with the stream.""",
    "KuaiRand": """\
*KuaiRand-Pure*: a feed, one video a request, so that AUC and log loss count; gAUC is of the
few requests with two. Recipes are chosen on validation days, but the test week was run at
ten states of the code: SRP4CTR was below BST at first and was changed, BST was not, and
two more seeds were run after three had shown no difference, and five more of SRP4CTR and
PNN with a tenth after five had shown none beyond the margin. With a tenth of the
impressions all networks train at twice the rate, but DIN and CAN are better at the common
one: .7414 and .7323, and PNN and BST in batches of 32: .7464, which is .0014 ± .0004 below
SRP4CTR (ten seeds), and (at the common rate) .7432.""",
}
CAPTIONS = {
    "quality_by_cost": """\
*Quality against cost.* The paper counts twice: *efficiency-FLOPs* are those of one
candidate, *inference-FLOPs* those of a hundred in one request, where what they share is
computed once. This is the second; the tables have both. The arrow leads to what SRP4CTR
would cost if it encoded the history once per candidate. Dashed lines are trees,
whose cost is not in FLOPs. Bars and bands are standard errors over seeds.""",
    "learning_curve": """\
*Few labels.* Fine-tuning gets a part of the slates; pre-training reads the whole log. On
KuaiRand that log has what users did with every impression, and so nearly every label: the
feedback stage learns from it. Bars are standard errors over seeds.""",
    "ablations": """\
*What each part is worth.* A variant's gAUC, in a feed its AUC, less SRP4CTR's at equal
seeds: left of the line the variant is worse. Bars are standard errors.""",
}
ABLATIONS = "Ablations, by SRP4CTR's recipe:"
LAST_ITEM = """\
A user's last item is to be found among 99 given others: S3-Rec's protocol. `fg-bert` is the
encoder by itself, `srp4ctr-none` SRP4CTR without pre-training."""
PUBLISHED = """\
 *Published*: the figures of S3-Rec's paper, on the same files."""


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
    """Put the evidence of ``results`` into ``page``; ValueError if it has no place."""
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
    """Return all that is between the comments."""
    if not clicks and not pretraining:
        return NOTHING
    parts = [READING]
    parts += [note for kind, note in NOTES.items() if any(kind in c.source for c in clicks)]
    for name in drawn:
        title = name.replace("_", " ")
        parts += [f"![{title}]({FOLDER}/{name}.svg)", CAPTIONS[name]]
    for of in clicks:
        parts += _of_clicks(of)
    for of in pretraining:
        text = LAST_ITEM + (PUBLISHED if of.source in tables.PUBLISHED else "")
        parts += [f"### Pre-training: {of.title}", text, tables.last_item(of)]
        if of.curves:
            parts += ["By share of the slates:", tables.last_item_shares(of)]
    return "\n\n".join(parts)


def _of_clicks(of: Evidence) -> list[str]:
    parts = [f"### Clicks: {of.title}", _judges(of)]
    if of.models:
        parts += [tables.quality(of), "AUC by kind of impression:", tables.kinds(of)]
    if of.ablations:
        parts += [ABLATIONS, tables.ablations(of)]
    if of.curves:
        parts += ["By share of the click labels:", tables.shares(of)]
    return parts


def _judges(of: Evidence) -> str:
    """Return how many impressions judge, and how precise that is."""
    row = of.reference or of.rows[0]
    impressions, clicks = number(row, "impressions"), number(row, "clicks")
    name, margin = "gAUC", number(row, "gauc_sampling_error")
    if of.metric == "auc" and impressions and clicks:
        name = "AUC"
        margin = auc_error(row["auc"], int(clicks), int(impressions - clicks))
    counted = [] if impressions is None else [f"{impressions:,.0f} impressions judge"]
    counted += [] if clicks is None else [f"{clicks:,.0f} were clicked"]
    text = f"{', '.join(counted) or 'Impressions were not counted'}."
    if margin is None:
        return text
    return (
        f"{text} Another draw of as many requests would move {name} by {plain(margin)} (a "
        "standard error): the models mostly together, and more seeds do not lessen it. "
        "Errors of differences are of seeds alone."
    )


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
    """Return what is before and after the evidence in ``page``."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for it: {BEGIN} and after it {END}")
    return before, after


def _draw(
    clicks: Sequence[Evidence], pretraining: Sequence[Evidence], folder: Path
) -> list[str]:
    """Write the plots that there is something for, remove the others; name the written.

    They show SRP4CTR among others: data on which it did not run with all labels have none.
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
