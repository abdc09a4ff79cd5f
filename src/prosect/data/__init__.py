"""Inputs: batches, sources cut into explore / validate / sealed, token streams, behaviours."""
