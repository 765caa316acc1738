"""The admission gate: what an expert from a stranger must pass before it is kept or merged.

step  looks at                                                      module
1     the folder's names: nothing but an expert's files, no links   moehub.admission.folder
2     sizes, and the safetensors headers before anybody parses them moehub.admission.sizes
3     what the safetensors library would let through                moehub.admission.headers
4     `adapter_config.json` and the card                            moehub.admission.manifest
5     tensors against the base: names, shapes, dtypes, finite       moehub.admission.tensors, counts
6     the norms of s·B·A, never of A or B                           moehub.admission.norms
7     signature, publisher's key, version                           moehub.admission.publisher
8     the loss on public text, and the gain on its own              moehub.admission.canary
9     the statistics: counts that a text can have                   moehub.admission.plausibility
      features that the counts imply                                moehub.admission.feature_evidence
      what the gate would give it                                   moehub.admission.routing

Each check is one small function that yields faults (`moehub.admission.check`); its name, with dashes, is the code
of its refusal. What a check needs and nobody has at hand is said, never assumed. No check executes what it is given,
and none claims to find a backdoor.
"""
