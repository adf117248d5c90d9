"""Layers and networks that several recipes share, and networks that judge and are never trained.

In: tensors. Out: tensors, under the names of published weights where there are any.
"""
