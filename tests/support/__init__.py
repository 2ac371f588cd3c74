"""Inputs, servers, clusters and checks that several tests share; no test imports another test."""
