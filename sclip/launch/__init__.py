"""All use of Ray except the data stream: clusters, capacity, plans, Ray Train's trainer, the exporter, the doctor."""
