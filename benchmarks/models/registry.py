"""Lists the baselines by name: those in this table are trained, evaluated and costed.

A baseline is a click model (``training/model/click_model.py``), most often a ``Baseline``
with a reading of its own: DIEN, PNN or CAN would each be one more file and one more line.
"""

from collections.abc import Callable, Mapping

from benchmarks.models.bst import BST
from benchmarks.models.din import DIN
from benchmarks.models.inputs import Baseline
from benchmarks.models.lr import LogisticRegression
from benchmarks.models.sasrec import SASRecClicks
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.click_model import ClickModel
from srp4ctr.training.model.embeddings import TableSizes

BASELINES: Mapping[str, Callable[[ModelConfig, TableSizes], ClickModel]] = {
    "lr": LogisticRegression,
    "dcnv2": Baseline,
    "din": DIN,
    "bst": BST,
    "sasrec": SASRecClicks,
}
