"""What a run will do on this cluster, before it does: a sized config and the cluster's shape in, a plan to read out."""

from sclip.launch.plan import price_table, rates
from sclip.launch.plan.planning import Plan, make
from sclip.launch.plan.show import show
from sclip.launch.plan.streams import with_streams

__all__ = ["Plan", "make", "price_table", "rates", "show", "with_streams"]
