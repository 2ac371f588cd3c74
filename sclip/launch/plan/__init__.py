"""Plan a run before it starts: take a sized config and the cluster's capacity, and return a plan to show."""

from sclip.launch.plan import price_table, rates
from sclip.launch.plan.memory import check_memory
from sclip.launch.plan.planning import Plan, make
from sclip.launch.plan.show import show
from sclip.launch.plan.streams import with_streams

__all__ = ["Plan", "check_memory", "make", "price_table", "rates", "show", "with_streams"]
