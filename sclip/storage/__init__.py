"""Read and write paths and URIs: streams, retries, staging folders, masked credentials."""
