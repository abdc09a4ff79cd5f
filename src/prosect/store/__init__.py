"""Run folders, the ledger, shards of tensors: everything on disk is written atomically and resumes."""
