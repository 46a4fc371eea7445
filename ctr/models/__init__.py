"""Models: what turns looked-up features into logits."""

from ctr.models.dlrm import Dlrm
from ctr.models.linear import Linear
from ctr.models.mlp import Mlp
from ctr.models.wide_dcn import WideDcn

__all__ = ["Dlrm", "Linear", "Mlp", "WideDcn"]
