/* SPDX-License-Identifier: Apache-2.0
 * The pod with the fewest requests per weight, the new one counted, so that an idle pool prefers its larger pods.
 */
#include "sched/sched_int.h"

static void pick(const struct sched_in *in, struct sched_row *rows, unsigned n, struct sched_state *st, struct rng *rng,
		 struct sched_out *out)
{
	sched_terms(in, rows, n);
	out->externality = 0;
	for (unsigned i = 0; i < n; i++)
		rows[i].cost = row_load(&rows[i]);
	sched_rank(rows, n, rng, out);
}

const struct sched_ops sched_least_request = {
	.name = "least-request",
	.doc = "fewest requests not finished, by weight",
	.pick = pick,
};
