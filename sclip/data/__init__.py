"""From tar shards to encoded batches: packing, reading, the schedule and the Ray Data stream."""
