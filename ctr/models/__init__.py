"""Models: what turns looked-up features into logits."""

from ctr.models.dlrm import Dlrm
from ctr.models.ensemble import Ensemble
from ctr.models.linear import Linear
from ctr.models.mlp import Mlp
from ctr.models.wide_dcn import WideDcn
from ctr.models.with_teacher import WithTeacher

__all__ = ["Dlrm", "Ensemble", "Linear", "Mlp", "WideDcn", "WithTeacher"]
