"""The runner: a torch-free supervisor and the render child it keeps warm.

``once`` renders one spec file and exits (pods); ``serve`` takes specs from the ``render`` queue (one machine).
"""
