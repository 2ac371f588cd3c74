"""Paths on this machine and in object stores: streams, retries, staging, credentials masked in messages."""
