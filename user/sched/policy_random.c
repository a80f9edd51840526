/* SPDX-License-Identifier: Apache-2.0
 * At random, each pod with a chance in proportion to its weight. The cost is the draw.
 */
#include "sched/sched_int.h"

static void pick(const struct sched_in *in, struct sched_row *rows, unsigned n, struct sched_state *st, struct rng *rng,
		 struct sched_out *out)
{
	sched_terms(in, rows, n);
	out->externality = 0;
	for (unsigned i = 0; i < n; i++)
		rows[i].cost = weighted_key(rng_next(rng), row_weight(&rows[i]));
	sched_rank(rows, n, rng, out);
}

const struct sched_ops sched_random = {
	.name = "random",
	.doc = "at random, by weight",
	.pick = pick,
};
