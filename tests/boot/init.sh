#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Does what comes over the console, line by line, and ends each with "=== NUMBER STATUS".
mount -t proc proc /proc
mount -t sysfs sysfs /sys
dmesg -n 1
stty -echo

number=0
echo "=== ready"
while read -r command; do
    eval "$command"
    echo "=== $number $?"
    number=$((number + 1))
done
