# SPDX-License-Identifier: GPL-2.0-or-later
"""Policies: decisions of the operator about partitions, taken in Python inside QEMU.

A policy is a class with the methods of `qemu_hv.policy.partitions.Policy`, named to QEMU by
``-object microsoft-hypervisor,role=root,policy=FILE.py:CLASS``; ``policy=default`` is
`qemu_hv.policy.partitions.DefaultPolicy`, and with ``policy=none`` no Python is loaded.
"""
