/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KVS_BASE_ALLOC_H
#define KVS_BASE_ALLOC_H

#include <stdlib.h>
#include <string.h>

/* calloc for what comes and goes with each request: glibc's own (before 2.41) passes by the thread's cache. */
static inline void *zalloc(size_t n)
{
	void *p = malloc(n);

	return p ? memset(p, 0, n) : NULL;
}

#endif
