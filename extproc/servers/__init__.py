"""What the model servers say of themselves, asked for at intervals: a second opinion beside the sidecar's own ledger.

Never in the way of a decision: answers are kept, aged and dropped here, and nobody waits for one.
"""
