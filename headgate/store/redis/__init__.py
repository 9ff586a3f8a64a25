"""The store several sidecars share: leases in one Redis or Valkey, one script call per loop turn at most.

`step.lua` decides, as one step, what `headgate.store.ledger` decides in memory; the modules here carry questions to it
and answers back, and know what holds while it gives none.
"""
