"""Everything of Ray's but the data stream: clusters, capacity, plans, Ray Train's trainer, the exporter, the doctor."""
