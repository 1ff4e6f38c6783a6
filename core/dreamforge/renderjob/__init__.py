"""The ``RenderJob`` resource (``dreamforge.dev/v1alpha1``): typed models of what an API server stores.

    names       API group, labels, annotations, derived object names
    conditions  phase, condition types and their closed reasons
    spec        what is asked for
    status      what the operator observed
    resource    the whole object
    ranges      item indexes as text: 0-3,5
    rules       what an API server checks beyond types and bounds (CEL)

``crds/renderjobs.yaml`` is generated from here by ``make crds``.
"""
