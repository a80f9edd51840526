/* SPDX-License-Identifier: Apache-2.0
 * Two drawn at random by weight, the less loaded of them first. Further draws are the next-ranked: they too come in
 * pairs, so that retries of many gateways do not all meet on the one idle pod.
 */
#include "sched/sched_int.h"

static void pick(const struct sched_in *in, struct sched_row *rows, unsigned n, struct sched_state *st, struct rng *rng,
		 struct sched_out *out)
{
	struct ranking drawn = { 0 };

	sched_terms(in, rows, n);
	out->externality = 0;
	for (unsigned i = 0; i < n; i++) {
		rows[i].cost = row_load(&rows[i]);
		ranking_put(&drawn, (uint16_t)i, weighted_key(rng_next(rng), row_weight(&rows[i])), 0);
	}
	ranking_out(&drawn, out);
	for (unsigned i = 0; i + 1 < out->n; i += 2) {
		uint16_t a = out->row[i], b = out->row[i + 1];

		if (rows[b].cost < rows[a].cost) {
			out->row[i] = b;
			out->row[i + 1] = a;
		}
	}
}

const struct sched_ops sched_p2c = {
	.name = "p2c",
	.doc = "the less loaded of two random pods, by weight",
	.pick = pick,
};
