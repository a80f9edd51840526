/* SPDX-License-Identifier: Apache-2.0
 * What the files of this module share.
 */
#ifndef KVS_ENDPOINT_ENDPOINT_INT_H
#define KVS_ENDPOINT_ENDPOINT_INT_H

#include <sched.h>

#include "endpoint/endpoint.h"

/* Held for a few instructions; a holder that lost its processor is waited for without burning ours. */
static inline void spin_lock(atomic_flag *f)
{
	for (unsigned i = 0; atomic_flag_test_and_set_explicit(f, memory_order_acquire); i++)
		if (i >= 64)
			sched_yield();
}

static inline void spin_unlock(atomic_flag *f)
{
	atomic_flag_clear_explicit(f, memory_order_release);
}

/* Decayed sums of service seconds and token-equivalents over all pods of a pool. Outlives the table, as charged
 * requests do. */
struct pool_rate {
	_Atomic uint32_t refs;
	atomic_flag lock;
	double s, t;
};

struct pool_rate *pool_rate_new(void); /* NULL and errno */
struct pool_rate *pool_rate_ref(struct pool_rate *r);
void pool_rate_unref(struct pool_rate *r);

/* Configured names of one pool. */
struct pool_names {
	unsigned n;
	char **names;
};

/* snapshot.c: a snapshot of <pods> with serial <serial>; NULL and errno. Its pods are referenced. */
struct snapshot *snapshot_build(struct list *pods, const struct pool_names *pools, unsigned npools, uint64_t serial);
void snapshot_free(struct snapshot *s);

/* pod.c */
struct pod *pod_new(const struct pod_spec *spec, unsigned pool, uint32_t id, uint32_t generation,
		    struct pool_rate *rate); /* NULL and errno */

#endif
