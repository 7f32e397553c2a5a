"""When a deviation means something. One place, so that agents, synthesis and verification judge alike.

All are in robust standard deviations of the service's own past, after what its peers share was taken away.
"""

# Below this nothing is said: the worst of several hundred quiet series reaches it by chance now and then.
NOTABLE = 6.0
SEVERE = 12.0
# What direct sight of a failure counts for: a process that is gone, an address that refuses.
DIRECT = 60.0
EACH_RUNAWAY = 25.0
CAP = 100.0
# A reading further than this from the past's centre is not "as before".
RECOVERED_WITHIN = 4.0
