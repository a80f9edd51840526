/* SPDX-License-Identifier: Apache-2.0
 * A histogram with Prometheus buckets.
 */
#ifndef SIM_HIST_H
#define SIM_HIST_H

#include <stdint.h>

#define PHIST_MAX 24

struct phist {
	const double *le; /* ascending upper bounds, without +Inf */
	unsigned n;
	uint64_t count[PHIST_MAX + 1]; /* not cumulative; the last is +Inf's own */
	double sum;
};

static inline void phist_add(struct phist *h, double v)
{
	unsigned i = 0;

	while (i < h->n && v > h->le[i])
		i++;
	h->count[i]++;
	h->sum += v;
}

#endif
