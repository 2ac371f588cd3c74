"""What tests share: inputs, servers, clusters and checks; no test imports another."""
