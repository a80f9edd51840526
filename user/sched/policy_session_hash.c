/* SPDX-License-Identifier: Apache-2.0
 * The same session on the same pod, without a table: every pod draws a number from the session's hash and its own key,
 * the least wins (rendezvous hashing, weighted). A pod that comes or goes moves its share of the sessions and no other;
 * replicas agree, as nothing but the pods' names enters.
 *
 * A pod with more than its bound of requests gives way to the next in the session's own order, so that its sessions
 * spread and find each other there again. The slack keeps small numbers from breaking sessions up: a client that sends
 * three requests at once to an idle pool must find one pod.
 */
#include <math.h>

#include "sched/sched_int.h"

#define BOUND_FACTOR 1.25
#define BOUND_SLACK  4.0
/* Above every draw: keys are below 38. */
#define OVER_BOUND 1000.0

void session_rank(uint64_t hash, struct sched_row *rows, unsigned n, struct rng *rng, struct sched_out *out)
{
	double requests = 1, weights = 0;

	for (unsigned i = 0; i < n; i++) {
		requests += rows[i].n;
		weights += row_weight(&rows[i]);
	}
	for (unsigned i = 0; i < n; i++) {
		struct sched_row *r = &rows[i];
		double w = row_weight(r);

		if (r->n + 1.0 > BOUND_FACTOR * requests * w / weights + BOUND_SLACK * w)
			r->cost = OVER_BOUND + row_load(r);
		else
			r->cost = weighted_key(mix64(mix64(hash) ^ r->key), w);
	}
	sched_rank(rows, n, rng, out);
}

static void pick(const struct sched_in *in, struct sched_row *rows, unsigned n, struct sched_state *st, struct rng *rng,
		 struct sched_out *out)
{
	uint64_t hash = in->session ? in->session : in->prefix;

	sched_terms(in, rows, n);
	out->externality = 0;
	if (hash) {
		session_rank(hash, rows, n, rng, out);
		return;
	}
	for (unsigned i = 0; i < n; i++)
		rows[i].cost = row_load(&rows[i]);
	sched_rank(rows, n, rng, out);
}

const struct sched_ops sched_session_hash = {
	.name = "session-hash",
	.doc = "a session (else a prompt's beginning) keeps its pod, with a bound on the pod's load",
	.pick = pick,
};
