"""The fault laboratory: a whole house, both vendors played by the sandbox, faults injected for real, a judge who sees only from outside.

`matrix` says which faults there are, `strikes` how each is injected, `ground` starts and mends what they break, `runs` places the calls;
`busy` keeps callers coming, for the `nemesis` and for `rolling` restarts. `witness` writes down what the vendors saw of each call, `judge`
(pure) says whether it was lost, `report` tells it: docs/fault-laboratory.md.
"""
