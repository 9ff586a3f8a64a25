"""The command `headgate`: the top floor, the only place that builds a whole stack."""
