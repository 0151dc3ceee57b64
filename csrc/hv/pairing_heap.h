/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pairing heaps: the least key first, and a node can leave from the middle. Nodes are members of what is sorted, so
 * nothing is allocated. Keys may wrap around, as those of one heap are never further apart than half their range.
 */
#ifndef HV_PAIRING_HEAP_H
#define HV_PAIRING_HEAP_H

#include "internal.h"

static inline bool hv_before(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b) < 0;
}

static inline struct hv_heap_node *hv_heap_merge(struct hv_heap_node *a, struct hv_heap_node *b)
{
    if (!a)
        return b;
    if (!b)
        return a;
    if (hv_before(b->key, a->key)) {
        struct hv_heap_node *swap = a;

        a = b;
        b = swap;
    }
    b->next = a->child;
    if (b->next)
        b->next->previous = b;
    b->previous = a;
    a->child = b;
    return a;
}

/* Make one heap of a list of siblings: in pairs from the left, then all from the right. */
static inline struct hv_heap_node *hv_heap_combine(struct hv_heap_node *node)
{
    struct hv_heap_node *pairs = NULL, *heap = NULL;

    while (node) {
        struct hv_heap_node *a = node, *b = node->next;

        node = b ? b->next : NULL;
        a->next = a->previous = NULL;
        if (b)
            b->next = b->previous = NULL;
        a = hv_heap_merge(a, b);
        a->next = pairs;
        pairs = a;
    }
    while (pairs) {
        struct hv_heap_node *next = pairs->next;

        pairs->next = NULL;
        heap = hv_heap_merge(heap, pairs);
        pairs = next;
    }
    return heap;
}

static inline void hv_heap_insert(struct hv_heap_node **heap, struct hv_heap_node *node)
{
    node->child = node->next = node->previous = NULL;
    *heap = hv_heap_merge(*heap, node);
}

static inline void hv_heap_remove(struct hv_heap_node **heap, struct hv_heap_node *node)
{
    struct hv_heap_node *rest = hv_heap_combine(node->child);

    if (*heap == node) {
        *heap = rest;
        return;
    }
    if (node->previous->child == node)
        node->previous->child = node->next;
    else
        node->previous->next = node->next;
    if (node->next)
        node->next->previous = node->previous;
    *heap = hv_heap_merge(*heap, rest);
}

#endif
