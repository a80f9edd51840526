/* SPDX-License-Identifier: Apache-2.0
 * In turn. A cycle has as many turns as the weights add up to; a stride that shares no factor with that number visits
 * each of them once and keeps the turns of a heavy pod apart.
 */
#include "sched/sched_int.h"

static uint64_t gcd(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t t = a % b;

		a = b;
		b = t;
	}
	return a;
}

static uint64_t stride_of(uint64_t sum, unsigned n)
{
	uint64_t stride;

	if (sum == n)
		return 1;
	stride = (uint64_t)((double)sum * 0.6180339887498949);
	if (!stride)
		stride = 1;
	while (gcd(stride, sum) != 1)
		stride++;
	return stride;
}

static void pick(const struct sched_in *in, struct sched_row *rows, unsigned n, struct sched_state *st, struct rng *rng,
		 struct sched_out *out)
{
	uint64_t sum = 0, at;
	unsigned first = 0;

	sched_terms(in, rows, n);
	out->externality = 0;
	for (unsigned i = 0; i < n; i++)
		sum += (uint64_t)row_weight(&rows[i]);
	at = st->turn++ % sum * stride_of(sum, n) % sum;
	for (unsigned i = 0; i < n; i++) {
		uint64_t w = (uint64_t)row_weight(&rows[i]);

		first = i;
		if (at < w)
			break;
		at -= w;
	}
	for (unsigned i = 0; i < n; i++)
		rows[i].cost = (i + n - first) % n;
	sched_rank(rows, n, rng, out);
}

const struct sched_ops sched_round_robin = {
	.name = "round-robin",
	.doc = "one pod after the other, by weight",
	.pick = pick,
};
