"""What a run will do on this cluster, before it does: a sized config and the cluster's shape in, a plan to read out."""

from sclip.plan import prices, rates
from sclip.plan.planning import Plan, make
from sclip.plan.show import show

__all__ = ["Plan", "make", "prices", "rates", "show"]
