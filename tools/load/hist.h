/* SPDX-License-Identifier: Apache-2.0
 * A histogram of durations with 128 buckets to each power of two: relative error below 0.8 %, fixed memory.
 */
#ifndef LOAD_HIST_H
#define LOAD_HIST_H

#include <stdint.h>

#define LHIST_SUB     128
#define LHIST_OCTAVES 42 /* up to 2^48 ns, three days; more counts as that */

struct lhist {
	uint64_t count[LHIST_OCTAVES * LHIST_SUB];
	uint64_t n, max;
	double sum;
};

void lhist_add(struct lhist *h, uint64_t v);
void lhist_merge(struct lhist *to, const struct lhist *from);
/* The least v such that a share of at least <q> is ≤ v (rounded up to its bucket's end, at most max); 0 if empty. */
uint64_t lhist_quantile(const struct lhist *h, double q);

#endif
