/* SPDX-License-Identifier: Apache-2.0
 * Least predicted work: what must be done first and what the request adds, in seconds of that pod. docs/scheduling.md
 * has the reasons and the figures.
 *
 * The ladder. PRECISE and APPROXIMATE differ in where the match comes from, not in the rule. SESSION: the prefix cannot
 * be known (an opaque body, say), so the session stays where it was. LOAD: nothing is known but the load; the rule with
 * no match anywhere, over all pods: the ledger is this gateway's own and never stale, so there is no herd that a choice
 * of two at random would have to break up.
 */
#include <math.h>

#include "sched/sched_int.h"

#define EXTERNALITY_MAX 4.0

static double externality(const struct sched_row *rows, unsigned n)
{
	double waiting = 0;

	for (unsigned i = 0; i < n; i++)
		waiting += rows[i].waiting;
	return fmin(EXTERNALITY_MAX, waiting / n);
}

static void pick(const struct sched_in *in, struct sched_row *rows, unsigned n, struct sched_state *st, struct rng *rng,
		 struct sched_out *out)
{
	uint64_t hash = in->session ? in->session : in->prefix;
	double a = externality(rows, n);

	sched_terms(in, rows, n);
	out->externality = a;
	if (in->mode == SCHED_SESSION && hash) {
		session_rank(hash, rows, n, rng, out);
		return;
	}
	/* The weight divides the requests only: seconds of backlog are seconds of this pod already. */
	for (unsigned i = 0; i < n; i++)
		rows[i].cost = (rows[i].backlog + rows[i].own * (1 + a)) * sqrt(rows[i].n / row_weight(&rows[i]) + 1);
	sched_rank(rows, n, rng, out);
}

const struct sched_ops sched_default = {
	.name = "default",
	.doc = "least predicted work in seconds, with prefix, queue and load; keeps sessions where prefixes are "
	       "unknown",
	.pick = pick,
};
