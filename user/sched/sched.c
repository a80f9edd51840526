/* SPDX-License-Identifier: Apache-2.0
 * The list of policies, the cost model's terms, and the ranking that all policies end with.
 */
#include "sched/sched.h"

#include <math.h>

#include "sched/sched_int.h"

/* How many token-equivalents of samples a pod needs until its own rate weighs as much as the pool's. */
#define PRIOR_WORK 8000.0
/* The pool's rate before it has been learned. All pods share it, so between idle pods it cancels. */
#define POOL_WORK_MIN 20000.0
#define RATE_UNKNOWN  0.17e-3

static const struct sched_ops *const policies[] = {
	&sched_default, &sched_round_robin, &sched_random, &sched_least_request, &sched_p2c, &sched_session_hash, NULL,
};

const struct sched_ops *const *sched_all(void)
{
	return policies;
}

const struct sched_ops *sched_find(struct str name)
{
	for (const struct sched_ops *const *p = policies; *p; p++)
		if (str_eq(name, str_of((*p)->name)))
			return *p;
	return NULL;
}

const char *sched_mode_name(enum sched_mode m)
{
	static const char *const names[] = { "precise", "approximate", "session", "load" };

	return names[m];
}

void sched_terms(const struct sched_in *in, struct sched_row *rows, unsigned n)
{
	static const struct sched_tuning usual = SCHED_TUNING;
	const struct sched_tuning *tune = in->tuning ? in->tuning : &usual;
	double pool_rate = in->pool_t > POOL_WORK_MIN ? in->pool_s / in->pool_t : RATE_UNKNOWN;
	uint32_t most = in->prompt_tokens ? in->prompt_tokens - 1 : 0;

	for (unsigned i = 0; i < n; i++) {
		struct sched_row *r = &rows[i];
		/* The last token is always computed, however much is cached. */
		uint32_t m = r->matched < most ? r->matched : most;

		r->uncached = in->prompt_tokens ? in->prompt_tokens - m : 1;
		r->work = r->uncached * (1 + (m + r->uncached / 2.0) / tune->attention_tokens) +
			  r->in_cpu * (1 - tune->cpu) + r->in_disk * (1 - tune->disk);
		r->rate = (r->s + PRIOR_WORK * pool_rate) / (r->t + PRIOR_WORK);
		r->own = r->work * r->rate;
	}
}

void ranking_put(struct ranking *r, uint16_t row, double cost, double key)
{
	unsigned i = r->n < SCHED_RANKED_MAX ? r->n++ : SCHED_RANKED_MAX;

	for (; i > 0; i--) {
		if (cost > r->cost[i - 1] || (cost == r->cost[i - 1] && key >= r->key[i - 1]))
			break;
		if (i == SCHED_RANKED_MAX)
			continue;
		r->row[i] = r->row[i - 1];
		r->cost[i] = r->cost[i - 1];
		r->key[i] = r->key[i - 1];
	}
	if (i == SCHED_RANKED_MAX)
		return;
	r->row[i] = row;
	r->cost[i] = cost;
	r->key[i] = key;
}

void ranking_out(const struct ranking *r, struct sched_out *out)
{
	out->n = r->n;
	for (unsigned i = 0; i < r->n; i++)
		out->row[i] = r->row[i];
}

double weighted_key(uint64_t bits, double weight)
{
	return -log(((double)(bits >> 11) + 0.5) * 0x1p-53) / weight;
}

void sched_rank(const struct sched_row *rows, unsigned n, struct rng *rng, struct sched_out *out)
{
	struct ranking best = { 0 };

	for (unsigned i = 0; i < n; i++) {
		/* A cost that is not a number compares as the worst. */
		double cost = rows[i].cost < INFINITY ? rows[i].cost : INFINITY;

		if (ranking_wants(&best, cost))
			ranking_put(&best, (uint16_t)i, cost, weighted_key(rng_next(rng), row_weight(&rows[i])));
	}
	ranking_out(&best, out);
}
